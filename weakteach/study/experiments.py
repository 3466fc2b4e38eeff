"""The experiments of the publication (WLT §4, appendices), each a function from a grid to its arms.

The controls at the main point are the student before alignment, SFT alone, human labels of the
unlabeled pairs, of all pairs, and of the labeled pairs alone, gold labels, and human labels with
random errors at the teacher's rate. Steps are shared, so a control is computed once for all
experiments. The size grid, the first look, has only the student before alignment and human labels
of the unlabeled and of the labeled pairs, and more of these if they are asked for.
"""

from collections.abc import Sequence
from dataclasses import replace

from weakteach.steps.data import Policy
from weakteach.steps.evaluation import LabelGold, Similarity
from weakteach.steps.judging import PairVerdicts, Verdicts
from weakteach.study.arms import Grid
from weakteach.study.experiment import A_GOLD, A_SECOND_DOMAIN, experiment, main_point
from weakteach.study.measures import Measure
from weakteach.study.points import Data
from weakteach.study.roles import BESIDE_HUMAN

# The least that a comparison of weak and human labels needs.
BASIC = ("base", "human", "weak")
# The seed that draws the prompts and pairs that a judge compares: the same for all seeds of a
# study, so that their outcomes can be paired.
JUDGED_SEED = 0


@experiment(
    "sizes",
    "Supervisor size and label fraction",
    "Does a larger teacher, or a larger labeled part, give better labels?",
    "fraction",
)
def size_grid(grid: Grid) -> list[Measure]:
    roles = [role for role in grid.first if role not in ("few_long", "both")]
    return _over_teachers(grid, [role for role in roles if role != "gold" or grid.data.gold])


@experiment(
    "beside",
    "Human and weak labels together",
    "Do weak labels of the other pairs help one who has the human labels of some?",
    "fraction",
)
def beside_human(grid: Grid) -> list[Measure]:
    found = _over_teachers(grid, [role for role in grid.first if role in BESIDE_HUMAN])
    # What weak labels are worth depends on how many there are.
    return found + [measure for measure in size_grid(grid).measures if measure.kind == "agreement"]


def _over_teachers(grid: Grid, roles: Sequence[str]) -> list[Measure]:
    """Students of these roles for every fraction and seed; those of weak labels for every teacher,
    the others beside the first."""
    found: list[Measure] = []
    for seed in grid.seeds:
        for fraction in grid.fractions:
            for number, weak in enumerate(grid.weak):
                lab = grid.lab(replace(grid.point(seed), fraction=fraction, weak=weak))
                of_teacher = [role for role in roles if role in ("weak", "both")]
                found += lab.outcomes(of_teacher if number else roles)
    return found


@experiment(
    "E1",
    "Student size",
    "Does a student of any size learn as much from weak labels as from human ones?",
    "student",
)
def student_size(grid: Grid) -> list[Measure]:
    return _over_students(grid, grid.data, grid.students, ("base", "sft", "human", "weak"))


@experiment(
    "E2",
    "Supervisor size",
    "How much does it matter who labels: teachers of several sizes, humans, gold?",
    "supervisor",
)
def supervisor_size(grid: Grid) -> list[Measure]:
    found = _main(grid)
    for seed in grid.seeds:
        for weak in grid.weak:
            lab = grid.lab(replace(grid.point(seed), weak=weak))
            found += lab.outcomes(("weak",))
        lab = grid.lab(grid.point(seed))
        found += lab.outcomes(grid.annotators)
    return found


@experiment(
    "E3",
    "Model families",
    "Does a teacher of one family teach students of others?",
    "student",
)
def families(grid: Grid) -> list[Measure]:
    return _over_students(grid, grid.data, grid.families, BASIC)


@experiment(
    "E4",
    "Win rate by a judge",
    "Does a judge prefer students of weak or of human labels?",
    "student",
    A_GOLD,
)
def judged(grid: Grid) -> list[Measure]:
    """Students as in E1 and E3, their responses compared by a judge."""
    found: list[Measure] = []
    if grid.judge:
        for seed in grid.seeds:
            for student in dict.fromkeys((*grid.students, *grid.families)):
                lab = grid.lab(replace(grid.point(seed), student=student))
                step = Verdicts(
                    lab.responses("weak"),
                    lab.responses("human"),
                    grid.judge,
                    prompts=grid.preset.judged_prompts,
                    seed=JUDGED_SEED,
                )
                found.append(lab.measure("verdicts", "weak", step, str(grid.judge)))
    return found


@experiment(
    "E5",
    "Summarization",
    "Does it hold in another domain, summaries of posts?",
    "student",
    A_SECOND_DOMAIN,
)
def summarization(grid: Grid) -> list[Measure]:
    if grid.summaries is None:
        return []
    return _over_students(grid, grid.summaries, grid.students, BASIC)


@experiment(
    "E6",
    "Label fraction",
    "How few human labels does a teacher need, all trained for equally many updates?",
    "fraction",
)
def label_fraction(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    for seed in grid.seeds:
        for fraction in grid.fractions:
            lab = grid.lab(replace(grid.point(seed), fraction=fraction))
            found += lab.outcomes(grid.controls)
    return found


@experiment(
    "E7",
    "Purification",
    "What do the pairs teach on which weak and human labels agree, and the others, and those "
    "of which the teacher is surest?",
    "labels",
)
def purification(grid: Grid) -> list[Measure]:
    return _main(grid, ("matched", "mismatched", "confident"))


@experiment(
    "E8",
    "Gold reward of the labels",
    "How good are chosen and rejected responses by weak, human, matched and mismatched labels?",
    "labels",
)
def label_quality(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    for seed in grid.seeds:
        lab = grid.lab(grid.point(seed))
        if lab.point.data.gold:
            for role in ("human", "weak", "matched", "mismatched", "confident"):
                step, name = LabelGold(lab.labels(role), lab.gold), str(lab.point.data.gold)
                kinds = ("label_gold", "label_gap")
                found += [lab.measure(kind, role, step, name) for kind in kinds]
        found.append(lab.agreement)
    return found


@experiment(
    "E9",
    "Where teacher and human differ",
    "What do the pairs look like on which the labels differ?",
    "labels",
)
def mismatches(grid: Grid) -> list[Measure]:
    found = []
    for seed in grid.seeds:
        lab = grid.lab(grid.point(seed))
        found.append(replace(lab.agreement, kind="examples"))
    return found


@experiment(
    "E10",
    "Consistency of a judge",
    "Is a judge less sure of the pairs on which weak and human labels differ?",
    "labels",
    A_GOLD,
)
def consistency(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    preset = grid.preset
    if grid.judge:
        for seed in grid.seeds:
            lab = grid.lab(grid.point(seed))
            for role in ("matched", "mismatched"):
                step = PairVerdicts(
                    lab.labels(role),
                    grid.judge,
                    pairs=preset.judged_prompts,
                    repeats=preset.judge_repeats,
                    seed=JUDGED_SEED,
                )
                found += [lab.measure("consistency", role, step, str(grid.judge))]
    return found


@experiment(
    "E11",
    "Other gold models",
    "Does the comparison come out alike under other gold models?",
    "student",
)
def gold_models(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    for seed in grid.seeds:
        for student in grid.students:
            lab = grid.lab(replace(grid.point(seed), student=student))
            for gold in grid.data.golds:
                found.append(lab.gold_accuracy(gold))
                found += [lab.reward(role, gold) for role in BASIC]
    return found


@experiment(
    "E12",
    "Teachers of other families",
    "Do teachers of other architectures teach as well?",
    "supervisor",
)
def other_teachers(grid: Grid) -> list[Measure]:
    found = _main(grid)
    for seed in grid.seeds:
        for student in (grid.student, *grid.families[:1]):
            for weak in (grid.weak[0], *grid.others):
                lab = grid.lab(replace(grid.point(seed), weak=weak, student=student))
                found += lab.outcomes(BASIC)
    return found


@experiment(
    "E13",
    "Agreement of generations",
    "Do students of weak and human labels, and the teacher, answer alike?",
    "labels",
)
def similarity(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    if grid.embedding:
        model = grid.embedding()
        for seed in grid.seeds:
            lab = grid.lab(grid.point(seed))
            for role in ("human", "weak", "teacher"):
                test = lab.point.data.held_out.test
                step = Similarity(lab.responses(role), test, model, lab.dtype)
                found += [lab.measure("similarity", role, step, str(model))]
    return found


@experiment(
    "E14",
    "Without SFT",
    "Does DPO need SFT on the labels before it?",
    "sft",
)
def without_sft(grid: Grid) -> list[Measure]:
    found = _main(grid)
    for seed in grid.seeds:
        lab = grid.lab(replace(grid.point(seed), sft=False))
        found += lab.outcomes(("human", "weak"))
    return found


@experiment(
    "E15",
    "Strength of DPO",
    "Does the comparison depend on DPO's beta?",
    "beta",
)
def beta(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    for seed in grid.seeds:
        for value in grid.ranges.betas:
            lab = grid.lab(grid.point(seed).with_dpo(beta=value))
            found += lab.outcomes(("human", "weak"))
    found += _main(grid)
    return found


@experiment(
    "E16",
    "Seeds of the split",
    "How much does the split, and all that is drawn after it, change the outcome?",
    "labels",
)
def split_seeds(grid: Grid) -> list[Measure]:
    found = _main(grid)
    for seed in grid.more_seeds:
        lab = grid.lab(grid.point(seed))
        found += lab.outcomes(BASIC)
    return found


@experiment(
    "E17",
    "Random errors at the same rate",
    "Are a teacher's errors better to learn from than as many random ones?",
    "labels",
)
def random_noise(grid: Grid) -> list[Measure]:
    roles = ("matched", "mismatched", "random_matched", "random_mismatched")
    return _main(grid, roles)


@experiment(
    "E18",
    "Teacher with a reward head",
    "Does a Bradley-Terry reward model label better than the implicit reward of DPO?",
    "supervisor",
)
def reward_head(grid: Grid) -> list[Measure]:
    found = _main(grid)
    for seed in grid.seeds:
        lab = grid.lab(replace(grid.point(seed), teacher="reward head"))
        found += lab.outcomes(("weak",))
    return found


EXPERIMENTS = (
    student_size, supervisor_size, families, judged, summarization, label_fraction, purification,
    label_quality, mismatches, consistency, gold_models, other_teachers, similarity, without_sft,
    beta, split_seeds, random_noise, reward_head,
)  # fmt: skip


def _main(grid: Grid, more: tuple[str, ...] = ()) -> list[Measure]:
    """The main point with its controls and further roles."""
    return main_point(grid, (*grid.controls, *more))


def _over_students(
    grid: Grid, data: Data, students: tuple[Policy, ...], roles: tuple[str, ...]
) -> list[Measure]:
    """Students in these roles, and the main one with all controls, for every seed."""
    if grid.student not in students:
        students = (grid.student, *students)
    found: list[Measure] = []
    for seed in grid.seeds:
        for student in students:
            lab = grid.lab(replace(grid.point(seed), data=data, student=student))
            wanted = grid.controls if student == grid.student else roles
            found += lab.outcomes(wanted)
    return found
