"""The search and the score of 21.18 against second ways to the same numbers."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch

from minigpt.config import GPTConfig
from minigpt.decoding.beam import beam_search
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.model import GPT
from minigpt.pretrained.causal_lm import score_continuation
from minigpt.pretrained.export import to_gpt2
from minigpt.pretrained.limits import context_of
from tasks.exercise import Context
from tasks.exercises.ex18_beam_search.findings import BEAM, BEAMS, PROMPT, Accuracy, Written
from tasks.exercises.ex18_beam_search.lab import Lab, own_loss


def accuracy(lab: Lab, written: Mapping[str, Written]) -> Accuracy:
    """All of it."""
    return Accuracy(**of_search(lab.context), **in_trained_model(lab, written))


def random_model(context: Context, vocab_size: int) -> GPT:
    """A small model, far from uniform, so that searches of different width differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=context.generator("model"))))
        model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=16, context=32, vocab_size=vocab_size)).eval()
    for weight in model.parameters():
        weight.data.mul_(2.5)
    return model


@torch.inference_mode()
def of_search(context: Context) -> dict[str, Any]:
    """Beam search against exhaustive search and against Transformers'."""
    tiny, prompt = random_model(context, 5), torch.tensor([1, 4, 2])
    every = torch.tensor([[1, 4, 2, *new] for new in itertools.product(range(5), repeat=4)])  # (625, 7)
    log_p = tiny(every[:, :-1]).log_softmax(dim=-1).gather(2, every[:, 1:, None])[:, 2:, 0].sum(dim=1)
    found = beam_search(tiny, prompt, 4, beams=5**3)
    gaps = torch.tensor([h.log_probability for h in found]) - log_p.topk(len(found)).values
    small = random_model(context, 23)
    theirs: Any = to_gpt2(small)
    prompts = torch.randint(23, (8, 5), generator=context.generator("prompts"))
    options = {"max_new_tokens": 14, "num_beams": BEAM, "do_sample": False, "pad_token_id": 0}
    equal = sum(
        torch.equal(
            theirs.generate(row[None], attention_mask=torch.ones_like(row[None]), **options)[0],
            beam_search(small, row, 14, beams=BEAM)[0].tokens,
        )
        for row in prompts
    )
    return {
        "exhaustive": len(every),
        "best_found": torch.equal(found[0].tokens, every[log_p.argmax()]),
        "listed": len(found),
        "listed_gap": gaps.abs().max().item(),
        "as_transformers": equal,
        "searches": len(prompts),
    }


def in_trained_model(lab: Lab, written: Mapping[str, Written]) -> dict[str, Any]:
    """The search in the trained model, and the other model's score."""
    prompt, again = lab.rows[0, :PROMPT], lab.rows[:1, :PROMPT]
    [narrow] = beam_search(lab.model, prompt, lab.n_new, beams=1)
    greedy = generate(lab.model, again, lab.n_new, sampling=GREEDY)[0]
    found = beam_search(lab.model, prompt, lab.n_new, beams=BEAM)[0]
    first = written[BEAMS[BEAM].key].texts[0]
    ours, theirs = both_losses(lab, lab.prompts[0], first)
    return {
        "width_1_is_greedy": torch.equal(narrow.tokens, greedy),
        "same_again": lab.decode(found.tokens[None]) == [first],
        "reported": found.log_probability,
        "reread": -own_loss(lab.model, found.tokens) * lab.n_new,
        "judged": ours,
        "judged_by_labels": theirs,
    }


@torch.inference_mode()
def both_losses(lab: Lab, prompt: str, text: str) -> tuple[float, float]:
    """Of what surely fits into the judge's context: our loss of a continuation, and its own from masked labels."""
    model, tokenizer = lab.judge.model, lab.judge.tokenizer
    text = text[: context_of(model) - len(prompt)]
    ids = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
    read = next(n for n in range(1, len(ids)) if len(tokenizer.decode(ids[:n])) >= len(prompt))
    row = torch.tensor([ids], device=model.device)
    labels = row.masked_fill(torch.arange(len(ids), device=row.device) < read, -100)
    return score_continuation(model, tokenizer, prompt, text).nats, model(row, labels=labels).loss.item()
