"""What speculative decoding gains, measured end to end and predicted from the prices of its parts."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from minigpt.decoding.readers import cache_for
from minigpt.decoding.sampling import generate
from minigpt.decoding.speculative import (
    Speculation,
    acceptance_probabilities,
    expected_speedup,
    expected_tokens,
    verify,
)
from minigpt.evaluation.statistics import compare_paired
from minigpt.evaluation.timing import Timing, measure
from minigpt.model import GPT
from tasks.exercises.ex27_speculative_decoding.findings import Speed

LEAD = 14  # tokens that a text, and each stretch of it, goes on from
Write = Callable[[Tensor, int], Tensor | Speculation]  # a prompt (1, T), so many tokens more


@dataclass
class Text:
    """One text as it was written."""

    tokens: list[Tensor]  # of each stretch with what it went on from, (1, LEAD + n)
    seconds: float
    passes: int = 0
    emitted: int = 0
    tested: int = 0
    accepted: int = 0


def write_text(write: Write, prompt: Tensor, n_new: int, stretch: int, device: torch.device) -> Text:
    """``n_new`` tokens after a prompt (1, LEAD), in stretches that fit the context.

    Learned positions end with the context, and a cache cannot slide along them: each stretch goes on from the last
    tokens of the one before. That is so for everyone who writes.
    """
    text, written = Text([], 0.0), 0
    _wait(device)
    started = time.perf_counter()
    while written < n_new:
        result = write(prompt, min(stretch, n_new - written))
        tokens = result.tokens if isinstance(result, Speculation) else result
        if isinstance(result, Speculation):
            text.passes, text.emitted = text.passes + result.passes, text.emitted + result.emitted
            text.tested, text.accepted = text.tested + result.tested, text.accepted + result.accepted
        text.tokens.append(tokens)
        written += tokens.shape[1] - prompt.shape[1]
        prompt = tokens[:, -LEAD:]
    _wait(device)
    text.seconds = time.perf_counter() - started
    return text


def race(
    writers: Mapping[str, Write],
    prompts: Tensor,  # (N, LEAD)
    n_new: int,
    stretch: int,
    counts: Mapping[str, int],  # of texts that each writes, at most N
    progress: Callable[[float], None],
) -> dict[str, list[Text]]:
    """All write from the same prompts, in turn, another one first each time."""
    found: dict[str, list[Text]] = {name: [] for name in writers}
    with torch.inference_mode():
        for write in writers.values():
            write(prompts[:1], min(stretch, 8))  # warm
        for i, prompt in enumerate(prompts):
            names = [name for name in writers if i < counts[name]]
            turn = i % max(1, len(names))
            for name in (*names[turn:], *names[:turn]):
                found[name].append(write_text(writers[name], prompt[None], n_new, stretch, prompts.device))
            progress((i + 1) / len(prompts))
    return found


def speed_up(plain: Sequence[Text], own: Sequence[Text]) -> tuple[float, float, float]:
    """How many times as fast, text by text, with its 95 % interval: of the mean logarithm of the ratios."""
    pairs = list(zip(plain, own, strict=False))
    found = compare_paired([math.log(b.seconds) for _, b in pairs], [math.log(a.seconds) for a, _ in pairs])
    return math.exp(found.difference), math.exp(found.interval[0]), math.exp(found.interval[1])


def share(texts: Sequence[Text], above: str, below: str) -> float:
    """Sum of one count over the sum of another, over all texts."""
    return sum(int(getattr(text, above)) for text in texts) / max(1, sum(int(getattr(text, below)) for text in texts))


def alpha_on(target: GPT, draft: GPT, texts: Sequence[Text]) -> float:
    """Mean acceptance probability on what the target wrote."""
    [alpha] = alphas_on(target, [draft], texts)
    return alpha


def alphas_on(target: GPT, drafts: Sequence[GPT], texts: Sequence[Text]) -> list[float]:
    """The same for each draft; the last stretch of a text may be shorter."""
    by_length: dict[int, list[Tensor]] = {}
    for tokens in (tokens for text in texts for tokens in text.tokens):
        by_length.setdefault(tokens.shape[1], []).append(tokens)
    chances = [
        [chance[:, LEAD - 1 : -1].flatten() for chance in acceptance_probabilities(target, drafts, torch.cat(rows))]
        for rows in by_length.values()
    ]
    return [torch.cat(of_draft).mean().item() for of_draft in zip(*chances, strict=True)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pass_times(model: GPT, counts: Sequence[int], *, length: int, repeats: int) -> dict[int, Timing]:
    """Time of a pass over each number of tokens, after ``length`` cached ones."""
    device = model.token_embedding.weight.device
    cache = cache_for(model, 1, length + max(counts))
    cache.advance(length)

    def reader(count: int) -> Callable[[], None]:
        tokens = torch.zeros(1, count, dtype=torch.long, device=device)

        def read() -> None:
            model(tokens, cache=cache)
            cache.rewind(length)

        return read

    timings = measure({str(n): reader(n) for n in counts}, repeats=repeats, warmup=3, device=device)
    return {int(count): timing for count, timing in timings.items()}


def verification_times(
    vocab_size: int, gammas: Sequence[int], *, repeats: int, device: torch.device
) -> dict[int, Timing]:
    """Time of the acceptance test alone, by γ."""

    def tester(gamma: int) -> Callable[[], object]:
        p = torch.full((1, gamma + 1, vocab_size), 1.0 / vocab_size, device=device)
        drafted = torch.zeros(1, gamma, dtype=torch.long, device=device)
        return lambda: int(verify(p, p[:, 1:], drafted)[0])  # the number is waited for, as in decoding

    timings = measure({str(gamma): tester(gamma) for gamma in gammas}, repeats=repeats, warmup=3, device=device)
    return {int(gamma): timing for gamma, timing in timings.items()}


@dataclass(frozen=True)
class Costs:
    """In plain steps of the target, as it decodes alone."""

    draft: float  # c: a step of the draft
    verify: Mapping[int, float]  # v by γ: a pass of the target over γ + 1 tokens, and the acceptance test

    def best_gamma(self, alpha: float) -> int:
        """With which the expected speed-up is highest."""
        return max(self.verify, key=lambda gamma: expected_speedup(alpha, gamma, self.draft, self.verify[gamma]))


def costs(
    target: GPT, drafts: Mapping[str, GPT], prompt: Tensor, stretch: int, gammas: Sequence[int], repeats: int
) -> dict[str, Costs]:
    """What drafting and verifying cost, by draft; drafts of one shape have one price.

    ``prompt`` (1, LEAD) is gone on from. A step is taken as a stretch of plain decoding over its tokens.
    """
    device = prompt.device
    shapes = {draft.config: draft for draft in (target, *drafts.values())}
    alone = measure(
        {str(i): partial(generate, model, prompt, stretch) for i, model in enumerate(shapes.values())},
        repeats=max(3, repeats // 4),
        device=device,
    )
    steps = {config: alone[str(i)].median / stretch for i, config in enumerate(shapes)}
    step = steps[target.config]
    passes = pass_times(
        target, (1, *(gamma + 1 for gamma in gammas)), length=LEAD + stretch // 2 - max(gammas), repeats=repeats
    )
    tests = verification_times(target.config.vocab_size, gammas, repeats=repeats, device=device)
    # What a longer pass costs more than a short one; drawing a token is in the plain step already. More tokens do not
    # cost less: where they seem to, it is the machine's noise, which on a busy one can be larger than a step.
    more = {gamma: max(0.0, passes[gamma + 1].median - passes[1].median) for gamma in gammas}
    verify = {gamma: 1.0 + (more[gamma] + tests[gamma].median) / step for gamma in gammas}
    return {name: Costs(steps[draft.config] / step, verify) for name, draft in drafts.items()}


def predicted(
    *,
    gamma: int,
    acceptance: float,
    tokens_per_pass: float,
    alpha: float,
    draft_cost: float,
    verify_cost: float,
    measured: float,
    low: float,
    high: float,
    texts: int,
) -> Speed:
    """What was measured, and what it should be by α and the costs; see ``Speed``."""
    return Speed(
        gamma=gamma,
        acceptance=acceptance,
        tokens_per_pass=tokens_per_pass,
        expected_tokens=expected_tokens(alpha, gamma),
        alpha=alpha,
        draft_cost=draft_cost,
        verify_cost=verify_cost,
        textbook=expected_speedup(alpha, gamma, draft_cost),
        predicted=expected_speedup(alpha, gamma, draft_cost, verify_cost),
        measured=measured,
        low=low,
        high=high,
        texts=texts,
    )
