import itertools
from dataclasses import replace

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.decoding.speculative import Speculation
from minigpt.evaluation.timing import Timing
from minigpt.model import GPT
from tasks.exercises.ex27_speculative_decoding import experiment as ex27
from tasks.exercises.ex27_speculative_decoding import speed
from tasks.exercises.ex27_speculative_decoding.findings import ITSELF, DraftModel
from tasks.exercises.ex27_speculative_decoding.speed import predicted
from tests.exercise_context import answered, assert_sound, measured


@pytest.fixture(scope="module")
def findings():
    return measured(ex27.EXERCISE)


def test_the_answer_is_sound(findings):
    answer = answered(ex27.EXERCISE, findings)
    assert_sound(ex27.EXERCISE, answer)
    assert answer.metrics["alpha_itself"] > 0.999
    per_pass = {name: value for name, value in answer.metrics.items() if name.startswith("tokens_per_pass_")}
    own = [value for name, value in per_pass.items() if "_itself_" in name]
    assert own
    assert max(own) > max(value for name, value in per_pass.items() if "_untrained_" in name)


def test_the_passes_write_the_text(findings):
    w = findings.writing
    assert "".join("".join(one.drafted[: one.accepted]) + one.added for one in w.rounds) == w.text
    assert len(w.rounds) == w.passes
    assert sum(one.accepted + 1 for one in w.rounds) == w.emitted
    tested = sum(min(one.accepted + 1, len(one.drafted)) for one in w.rounds)
    assert sum(one.accepted for one in w.rounds) / tested == pytest.approx(w.acceptance)
    assert all(0 < q <= 1 and 0 <= p <= 1 for one in w.rounds for p, q in zip(one.target, one.draft, strict=True))


def test_chi_square_of_the_expected_counts_of_others_and_of_the_impossible():
    exact = {(0, 0, 0): 0.5, (0, 0, 1): 0.3, (1, 0, 0): 0.2}
    texts = {text: torch.tensor([text]).expand(round(share * 1000), -1) for text, share in exact.items()}
    assert ex27.p_value(torch.cat(list(texts.values())), exact) == pytest.approx(1.0)
    assert ex27.p_value(torch.cat([texts[0, 0, 0], texts[1, 0, 0]]), exact) < 1e-6
    assert ex27.p_value(torch.tensor([[1, 1, 1]]), exact) == 0.0


def test_the_enumerated_texts_have_all_the_probability():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=16, vocab_size=11)).eval()
    exact = ex27.exact_distribution(model, torch.tensor([[1, 2]]))
    assert sum(exact.values()) == pytest.approx(1.0, abs=1e-6)
    assert len(exact) == 8**3


def test_greedy_identity_counts_texts_that_differ(monkeypatch):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=32, vocab_size=11)).eval()
    prompts = torch.randint(11, (5, 4), generator=torch.Generator().manual_seed(0))
    assert ex27.greedy_identity(model, [model], prompts, 9) == 5

    def spoiled(target, draft, prompt, n_new, *, gamma, sampling):
        found = ex27.generate(target, prompt, n_new, sampling=sampling)
        if prompt[0, 0] == prompts[2, 0]:
            found[0, -1] = (found[0, -1] + 1) % 11
        return Speculation(found)

    monkeypatch.setattr(ex27, "speculate", spoiled)
    expected = sum(int(first != prompts[2, 0]) for first in prompts[:, 0])
    assert ex27.greedy_identity(model, [model], prompts, 9) == expected < 5


def drafting(label: str, loss: float, alpha: float, speedup: float, gamma: int = 4) -> DraftModel:
    speed = predicted(
        gamma=gamma,
        acceptance=alpha,
        tokens_per_pass=2.0,
        alpha=alpha,
        draft_cost=0.1,
        verify_cost=1.5,
        measured=speedup,
        low=speedup * 0.9,
        high=speedup * 1.1,
        texts=30,
    )
    return DraftModel(label, label.replace(" ", "_"), 1, 4, 100, 1_000, loss, (speed,))


def said_of(findings, drafts, part: int) -> str:
    """The sentences of a part, in one line."""
    answer = answered(ex27.EXERCISE, replace(findings, drafts=tuple(drafts)))
    return " ".join(" ".join(b.text.split()) for b in answer.parts[part].blocks if b.type == "prose")


@pytest.mark.parametrize("order", list(itertools.permutations((0.2, 0.5, 0.8))))
def test_what_is_said_of_the_drafts_follows_their_numbers(findings, order):
    drafts = [
        drafting(f"draft {i}", loss, alpha, alpha + 0.5)
        for i, (loss, alpha) in enumerate(zip((3, 2, 1), order, strict=True))
    ]
    said = said_of(findings, [*drafts, drafting(ITSELF, 1.5, 1.0, 0.7)], 3)
    assert "the order by α is the order by speed-up" in said
    best = order[2] == 0.8
    assert ("has the highest α, too" in said) == best
    assert ("the target has 1.500" in said) == (not best)
    assert "its best speed-up is 0.70" in said
    assert "By the cost model the best γ is 4 for both" in said


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        (0.8, "nothing is gained at this size"),
        (1.05, "not distinguishable from plain decoding; its"),
        (1.5, "is 1.50 times as fast as plain decoding; its"),
    ],
)
def test_a_gain_is_called_one_where_the_quartiles_leave_no_doubt(findings, speedup, words):
    drafts = [drafting("draft", 3.0, 0.5, speedup, gamma=2), drafting(ITSELF, 1.5, 1.0, 0.7)]
    said = said_of(findings, drafts, 2)
    assert words in said
    assert "verifying γ + 1 tokens 1.50 steps" in said


def test_a_higher_speed_up_on_fewer_texts_is_named_and_does_not_win(findings):
    first, itself = drafting("draft", 3.0, 0.5, 1.5), drafting(ITSELF, 1.5, 1.0, 0.7)
    quick, slow = (replace(first.best, gamma=g, measured=m, texts=6) for g, m in ((8, 1.9), (2, 1.4)))
    drafts = (replace(first, speeds=(quick, first.best, slow)), itself)
    said = said_of(findings, drafts, 2)
    assert "“draft” with γ = 4, is 1.50 times as fast" in said
    assert "“draft” with γ = 8 has 1.90, but on 6 texts only" in said
    assert "γ = 2 has" not in said
    answer = answered(ex27.EXERCISE, replace(findings, drafts=drafts))
    assert "the best speed-up measured on 30 texts is 1.50" in " ".join(answer.summary.split())


def test_a_better_draft_may_run_ahead_longer(findings):
    drafts = [
        drafting("bad", 3.0, 0.2, 1.6, gamma=1),
        drafting("good", 2.0, 0.8, 1.5),
        drafting(ITSELF, 1.5, 1.0, 0.7),
    ]
    said = said_of(findings, drafts, 3)
    assert (
        "the longer it may run ahead: by the cost model the best γ is 1 for the worst of them and 4 for the best"
        in said
    )
    assert "not quite the order by speed-up" in said


# --- The race ---------------------------------------------------------------------------------------------------


def test_a_text_is_written_in_stretches_that_each_go_on_from_the_last_tokens():
    seen = []

    def count_on(prompt, n):
        seen.append(prompt.clone())
        return torch.cat([prompt, prompt[:, -1:] + 1 + torch.arange(n)], dim=1)

    prompt = torch.arange(speed.LEAD)[None]
    text = speed.write_text(count_on, prompt, 25, 10, torch.device("cpu"))
    assert [len(tokens[0]) - speed.LEAD for tokens in text.tokens] == [10, 10, 5]
    written = torch.cat([tokens[0, speed.LEAD :] for tokens in text.tokens])
    assert torch.equal(written, speed.LEAD + torch.arange(25))
    assert all(torch.equal(one[0], one[0, 0] + torch.arange(speed.LEAD)) for one in seen)
    assert text.seconds > 0


def test_counts_of_a_text_are_those_of_its_stretches():
    def speculated(prompt, n):
        return Speculation(torch.cat([prompt, prompt[:, :1].expand(1, n)], dim=1), 2, n, 4, 3)

    text = speed.write_text(speculated, torch.zeros(1, speed.LEAD, dtype=torch.long), 20, 8, torch.device("cpu"))
    assert (text.passes, text.emitted, text.tested, text.accepted) == (6, 20, 12, 9)
    assert speed.share([text, text], "accepted", "tested") == 0.75


def test_all_write_from_the_same_prompts_and_each_is_first_in_its_turn():
    order = []

    def writer(name):
        def write(prompt, n):
            order.append((name, int(prompt[0, 0])))
            return torch.cat([prompt, prompt[:, :1].expand(1, n)], dim=1)

        return write

    prompts = torch.arange(3)[:, None].expand(3, speed.LEAD)
    told = []
    counts = {"a": 3, "b": 3, "c": 1}
    found = speed.race({name: writer(name) for name in "abc"}, prompts, 6, 8, counts, told.append)
    assert {name: len(texts) for name, texts in found.items()} == counts
    assert [int(text.tokens[0][0, 0]) for text in found["a"]] == [0, 1, 2]
    turns = order[3:]  # after the warm-up
    assert next(name for name, prompt in turns if prompt == 0) == "a"
    assert next(name for name, prompt in turns if prompt == 1) == "b"
    assert told[-1] == 1.0


def test_the_speed_up_is_that_of_the_pairs():
    plain = [speed.Text([], seconds) for seconds in (1.0, 2.0, 4.0)]
    twice = [speed.Text([], seconds) for seconds in (0.5, 1.0, 2.0)]
    measured, low, high = speed.speed_up(plain, twice)
    assert measured == pytest.approx(2.0)
    assert low == pytest.approx(high) == pytest.approx(2.0), "texts that differ in length alone say it exactly"
    noisy = [speed.Text([], seconds) for seconds in (0.5, 2.0, 1.0)]
    measured, low, high = speed.speed_up(plain, noisy)
    assert low < measured < high


def test_alpha_is_that_of_the_stretches_behind_what_they_went_on_from():
    torch.manual_seed(0)
    config = GPTConfig(n_layer=1, n_head=1, d_model=8, context=40, vocab_size=11)
    target, draft = GPT(config).eval(), GPT(config).eval()
    rows = torch.randint(11, (3, speed.LEAD + 6))
    texts = [speed.Text([row[None], row[None, : speed.LEAD + 2]], 1.0) for row in rows]
    by_hand = []
    with torch.no_grad():
        for text in texts:
            for tokens in text.tokens:
                p, q = (model(tokens)[0].softmax(-1) for model in (target, draft))
                by_hand += torch.minimum(p, q).sum(-1)[speed.LEAD - 1 : -1].tolist()
    assert speed.alpha_on(target, draft, texts) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert speed.alpha_on(target, target, texts) == pytest.approx(1.0, rel=1e-5)


def test_the_best_gamma_is_a_longer_one_for_a_better_draft():
    price = speed.Costs(0.1, {1: 1.1, 2: 1.2, 4: 1.4, 8: 1.8})
    assert price.best_gamma(0.1) == 1
    assert price.best_gamma(0.95) == 8


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (1.0, "better than the best of them by 1.000 nats"),
        (1.95, "hardly better than the best of them"),
        (2.0, "no worse than the target"),
        (2.5, "no worse than the target"),
    ],
)
def test_a_target_is_called_better_where_it_is(findings, loss, words):
    drafts = [drafting("bad", 3.0, 0.2, 0.9), drafting("good", 2.0, 0.8, 1.5), drafting(ITSELF, loss, 1.0, 0.7)]
    assert words in said_of(findings, drafts, 0)


def test_the_mistake_shows_in_a_real_text(findings):
    """An empirical check, since a text of two letters may not show it; in this one it must."""
    check = next(
        check
        for check in answered(ex27.EXERCISE, findings).checks
        if check.claim.startswith("the same test on the draft's own texts")
    )
    assert check.passed


def test_verifying_costs_a_pass_and_its_test_at_least(monkeypatch):
    """On a busy machine a pass over nine tokens has been faster than one over one, by more than a step."""
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=64, vocab_size=11)).eval()
    seconds = {1: 0.050, 2: 0.060, 9: 0.001}

    def noisy(model, counts, **_):
        return {count: Timing(seconds[count], seconds[count], seconds[count], 5) for count in counts}

    monkeypatch.setattr(speed, "pass_times", noisy)
    with torch.inference_mode():
        [own] = speed.costs(model, {"draft": model}, torch.zeros(1, 14, dtype=torch.long), 40, (1, 8), 3).values()
    assert own.verify[1] > 1
    assert own.verify[8] > 1
