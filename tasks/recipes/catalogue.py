"""Every model the chapter trains, each a named constant; exercises import them from here.

A variant is ``replace`` of another recipe, so that what differs is what is written. Two exercises
that need the same model name the same constant, and it is trained once.
"""

from dataclasses import replace

from minigpt.config import GPTConfig
from minigpt.train import TrainConfig
from tasks.recipes.recipe import FineTune, Recipe

# --- The book's three sizes (exercise 21.22): 2, 4 and 6 layers -----------------------------------------------

# The learning rate falls as 1 / width, the rule under which one rate suits all widths (Yang et al., 2022, "Tensor
# Programs V", table 3), so that a difference between the sizes is not one of tuning.

SMALL = Recipe(
    name="small",
    group="small",
    model=GPTConfig(n_layer=2, n_head=4, d_model=128, context=256),
    train=TrainConfig(steps=3_000, batch_size=64, learning_rate=3e-3, warmup_steps=200, schedule="trapezoid"),
)
MEDIUM = replace(
    SMALL,
    name="medium",
    group="medium",
    model=GPTConfig(n_layer=4, n_head=8, d_model=256, context=256),
    train=replace(SMALL.train, learning_rate=1.5e-3),
)
LARGE = replace(
    SMALL,
    name="large",
    group="large",
    model=GPTConfig(n_layer=6, n_head=12, d_model=384, context=256),
    train=replace(SMALL.train, learning_rate=1e-3),
)
# The small model for longer, to which 21.15 listens after every epoch. It passes the end of the short one on its way,
# and the larger two finish a training in its time on theirs: see ``budgets`` in the profiles.
SMALL_LONG = replace(SMALL, name="small-long", group="small-long", train=replace(SMALL.train, snapshots="epoch"))

# The same three sizes on byte pairs: only with GPT-2's 50,257 are they the book's 2, 10 and 30 million parameters (6.9,
# 16.1 and 30.0). Where the text is too short for that, a profile gives them a vocabulary of its own, or trains fewer.
SMALL_BPE = replace(SMALL, name="small-bpe", group="small-bpe", tokenizer="bpe")
MEDIUM_BPE = replace(MEDIUM, name="medium-bpe", group="medium-bpe", tokenizer="bpe")
LARGE_BPE = replace(LARGE, name="large-bpe", group="large-bpe", tokenizer="bpe")

# Drafts for speculative decoding (21.27): the small model, stopped earlier or later.
DRAFT_POOR = replace(SMALL, name="draft-poor", group="draft-poor")
DRAFT_FAIR = replace(SMALL, name="draft-fair", group="draft-fair")

# The learned positions that 21.20 looks at: as many as GPT-2's where a profile can train them, else SMALL_LONG's.
POSITIONS = replace(SMALL_LONG, name="position-table", group="position-table")

# A context of 512 for generations of 500 tokens (21.16): what is timed does not depend on how well it is trained.
TIMING = Recipe(
    name="timing",
    group="timing",
    model=GPTConfig(n_layer=4, n_head=4, d_model=192, context=512),
    train=TrainConfig(steps=200, batch_size=16, learning_rate=2e-3),
)

# --- The small studies: one cheap baseline, of which every variant changes one thing ------------------------
# The learning rate is constant until the last fifth, and a training of half the steps is branched off and finished: so
# that variants whose steps take longer are compared at equal time by trainings that came to their end, too.

STUDY = Recipe(
    name="study",
    group="study",
    model=GPTConfig(n_layer=2, n_head=4, d_model=64, context=64),
    train=TrainConfig(steps=3_000, batch_size=64, schedule="trapezoid", budgets=(0.5,)),
)

# The mistake of 21.2 (d): full attention in training. No weight tying (21.5).
STUDY_BIDIRECTIONAL = replace(STUDY, name="study-bidirectional", train=replace(STUDY.train, objective="bidirectional"))
STUDY_UNTIED = replace(STUDY, name="study-untied", model=replace(STUDY.model, tie_weights=False))

# --- Variants of positions and attention (21.25, 21.26, 21.28, 21.30, 21.33) -----------------------------------
# All but the positions themselves are varied on the rotary model: Llama and Mistral are built on it, it can read past
# its training length, and it leaves the first plateau early, where seeds differ more than variants do.

STUDY_ROPE = replace(STUDY, name="study-rope", model=replace(STUDY.model, position="rope"))
# Trained longer, to tell a head start from a better end (21.25).
POSITIONS_LEARNED = replace(
    STUDY, name="positions-learned", group="positions", train=replace(STUDY.train, budgets=(0.25, 0.5))
)
POSITIONS_ROPE = replace(POSITIONS_LEARNED, name="positions-rope", model=replace(STUDY.model, position="rope"))
POSITIONS_SINUSOIDAL = replace(
    POSITIONS_LEARNED,
    name="positions-sinusoidal",
    group="positions-once",
    model=replace(STUDY.model, position="sinusoidal"),
)
POSITIONS_NONE = replace(POSITIONS_SINUSOIDAL, name="positions-none", model=replace(STUDY.model, position="none"))

# Texts long enough for a window to cut something off, and for a paragraph to be read before its continuation.
STUDY_LONG = replace(
    STUDY_ROPE,
    name="study-long",
    group="study-long",
    model=replace(STUDY_ROPE.model, context=256),
    train=replace(STUDY.train, budgets=(0.25, 0.5)),  # under a mask a step can take more than twice as long
)
STUDY_WINDOW_2 = replace(STUDY_LONG, name="study-window-2", model=replace(STUDY_LONG.model, window=2))
STUDY_WINDOW_8 = replace(STUDY_LONG, name="study-window-8", model=replace(STUDY_LONG.model, window=8))
STUDY_WINDOW_32 = replace(STUDY_LONG, name="study-window-32", model=replace(STUDY_LONG.model, window=32))

STUDY_GQA = replace(STUDY_ROPE, name="study-gqa", model=replace(STUDY_ROPE.model, n_kv_head=2))
STUDY_MQA = replace(STUDY_ROPE, name="study-mqa", model=replace(STUDY_ROPE.model, n_kv_head=1))
# The parameters that sharing saves, 2 · (H - 1) · D · (C + 1) a layer, given back to the feed-forward layer at 2C + 1
# for each unit of its width. The profiles that change C change d_ff with it.
STUDY_MQA_WIDE = replace(
    STUDY_MQA, name="study-mqa-wide", group="study-mqa-wide", model=replace(STUDY_MQA.model, d_ff=304)
)

# BERT's way to use full attention (21.10).
STUDY_MASKED = replace(STUDY_ROPE, name="study-masked", train=replace(STUDY.train, objective="masked"))
STUDY_PREFIX = replace(STUDY_LONG, name="study-prefix", train=replace(STUDY_LONG.train, objective="prefix"))
# As few targets as the prefix model has, under the causal mask.
STUDY_PREFIX_CONTROL = replace(
    STUDY_PREFIX,
    name="study-prefix-control",
    train=replace(STUDY_PREFIX.train, objective_args=(("bidirectional", False),)),
)

STUDY_FUTURE_2 = replace(
    STUDY_ROPE,
    name="study-future-2",
    model=replace(STUDY_ROPE.model, n_future=2),
    train=replace(STUDY.train, objective="multi_token"),
)
STUDY_FUTURE_4 = replace(STUDY_FUTURE_2, name="study-future-4", model=replace(STUDY_ROPE.model, n_future=4))
STUDY_FUTURE_8 = replace(STUDY_FUTURE_2, name="study-future-8", model=replace(STUDY_ROPE.model, n_future=8))
STUDY_FUTURE_4_SUM = replace(
    STUDY_FUTURE_4,
    name="study-future-4-sum",
    train=replace(STUDY_FUTURE_4.train, objective_args=(("reduction", "sum"),)),
)

# --- The same text under other tokenizers (21.23): a vocabulary of words, and GPT-2's 50,257 byte pairs -----------

STUDY_WORD = replace(STUDY_ROPE, name="study-word", group="study-word", tokenizer="word")
STUDY_BPE = replace(STUDY_ROPE, name="study-bpe", group="study-bpe", tokenizer="bpe")

# --- Teacher and students (21.35), which are also expert and amateur (21.31) and target and drafts (21.27) ---------
# A teacher of six layers that a laptop can afford to run beside every step of its students. Both have what makes a
# small model learn fast (docs/performance.md), since no exercise studies it on them: what is asked is what a teacher
# adds. ``alpha`` weighs the cross-entropy: 1 would be STUDENT itself, 0 is the teacher's distribution alone.

STUDENT = replace(
    STUDY_ROPE,
    name="student",
    group="student",
    model=replace(STUDY_ROPE.model, qk_norm=True, activation="relu2"),
    train=TrainConfig(steps=3_000, batch_size=64, optimizer="muon"),
)
TEACHER = replace(
    STUDENT,
    name="teacher",
    group="teacher",
    model=replace(STUDENT.model, n_layer=6, d_model=96),
)
# LARGE's size, for 21.27: LARGE itself, trained as SMALL is, is hardly ahead of SMALL until both have read far more.
TARGET = replace(
    STUDENT,
    name="target",
    group="target",
    model=replace(STUDENT.model, n_layer=6, n_head=12, d_model=384, context=256),
)
# Steps for about the time that a distilled student takes, the teacher's passes included.
STUDENT_LONG = replace(STUDENT, name="student-long", group="student-long")
DISTILLED_1 = replace(
    STUDENT,
    name="distilled-1",
    teacher=TEACHER,
    train=replace(STUDENT.train, objective="distill", objective_args=(("alpha", 0.5), ("tau", 1.0))),
)
DISTILLED_2 = replace(
    DISTILLED_1,
    name="distilled-2",
    train=replace(DISTILLED_1.train, objective_args=(("alpha", 0.5), ("tau", 2.0))),
)
DISTILLED_4 = replace(
    DISTILLED_1,
    name="distilled-4",
    train=replace(DISTILLED_1.train, objective_args=(("alpha", 0.5), ("tau", 4.0))),
)
DISTILLED_SOFT = replace(
    DISTILLED_1,
    name="distilled-soft",
    train=replace(DISTILLED_1.train, objective_args=(("alpha", 0.0), ("tau", 2.0))),
)
DISTILLED_HARD = replace(
    DISTILLED_1,
    name="distilled-hard",
    train=replace(DISTILLED_1.train, objective_args=(("alpha", 0.9), ("tau", 2.0))),
)


# What takes the pretrained model's place where none is used: of GPT-2's architecture, and trained anyway.
STAND_IN = LARGE


# --- The pretrained model, trained further (21.21) ------------------------------------------------------------

VERSE = FineTune(name="fine-tuned", corpus="domain")


def tunings() -> dict[str, FineTune]:
    """All fine-tunings by name."""
    return {value.name: value for value in list(globals().values()) if isinstance(value, FineTune)}


def recipes() -> dict[str, Recipe]:
    """All recipes by name.

    Raises:
        ValueError: two recipes share a name.
    """
    found: dict[str, Recipe] = {}
    for value in list(globals().values()):
        if isinstance(value, Recipe):
            if found.get(value.name, value) is not value:
                raise ValueError(f"two recipes are called {value.name!r}")
            found[value.name] = value
    return found
