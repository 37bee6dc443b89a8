"""Anything a user, a server or a disk can hand to the program: a right answer or one sentence, and nothing written.

A short version runs with the other tests, ``make fuzz`` runs the long one: CHAPTER_FUZZ is the number of cases per
test.
"""

import math
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("CHAPTER_FUZZ", "40"))
fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=CASES < 100,  # the short version is the same for all, the long one looks elsewhere each time
    suppress_health_check=list(HealthCheck),
)

# Text as the operating system gives it: bytes that are no UTF-8 come as lone surrogates, no NUL ever comes.
arguments = st.one_of(
    st.sampled_from(["", " ", "\n", "0", "-1", "nan", "inf", "1e400", "1e308", "٣", "²", "1_0", "0x10", "9" * 5000]),
    st.sampled_from(["21.1", "21.08", "8", "21.²", "21.", ".1", "21-5", "21.1,,21.2", "21.0", "-", "--", "a" * 10_000]),
    st.sampled_from(["smoke", "laptop", "embedded", "hub", "cpu", "cuda", "local", "fp32", "hf:", "hf:a:b:c:d", "~"]),
    st.sampled_from(["/dev/null", "/", ".", "..", "file://x", "http://127.0.0.1:9/x", "ftp://x", "://", "\udcff"]),
    st.sampled_from(["none", "stand-in", "embedded", "gpt2", "http://[", "~nobody/x", "hf:\n"]),
    st.text(st.characters(exclude_characters="\0"), max_size=12),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(2**63), 0, 1]),
    st.floats(),
    st.text(max_size=8),
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.sampled_from([2**31, 2**63, -(2**64), 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1e-320, 0.5]),
    st.text(max_size=6),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["pre", "post", "rope", "adamw", "causal", "fp32", (), ((),), (("tau", 0.0),)]),
)
