"""The table of a study's results: one row per arm, role and number measured."""

import pyarrow as pa


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


RESULTS_SCHEMA = pa.schema(
    [
        _field("experiments", pa.string(), "Experiments that show the number, such as E1, E2"),
        _field("arm", pa.string(), "Name of the arm: its setting and seed"),
        _field("domain", pa.string(), "Where the pairs come from"),
        _field("weak", pa.string(), "Model that the arm's teacher starts from"),
        _field("teacher", pa.string(), "Kind of teacher: DPO (implicit reward) or reward head"),
        _field("student", pa.string(), "Model that is aligned"),
        _field("fraction", pa.string(), "Labeled share of the training pairs, such as 1/16"),
        _field("beta", pa.string(), "Beta of the students' DPO"),
        _field("sft", pa.string(), "Whether students start DPO with or without SFT"),
        _field(
            "recipe",
            pa.string(),
            "What else of the students' DPO is not the preset's, such as lora.rank 16; or usual",
        ),
        _field("seed", pa.int64(), "Seed of the split, of training and of sampling"),
        _field(
            "role",
            pa.string(),
            "What the student learned from: base (nothing yet), sft (SFT alone on human labels), "
            "human, human_all, human_few, gold, prompted, random, weak, matched, mismatched, … "
            "(SFT and DPO on these labels), or teacher",
        ),
        _field(
            "measure",
            pa.string(),
            "What was measured: gold_reward (mean over test prompts), garbage (share of "
            "unreadable words), student_accuracy, agreement and teacher_accuracy (shares of pairs "
            "on which labels agree with humans), …_gold (with gold), gold_with_weak (share of "
            "mismatches on which gold sides with weak), chosen_gold, rejected_gold, win_rate, "
            "flips (share of verdicts that change with the order), longer (share of verdicts for "
            "the longer response), consistency, similarity",
        ),
        _field("of", pa.string(), "The gold, judge or embedding that measured"),
        _field("value", pa.float64(), "The number; null while pending or failed"),
        _field("se", pa.float64(), "Its standard error over prompts or pairs, where known"),
        _field("n", pa.int64(), "Prompts or pairs that it was taken over"),
        _field("step", pa.string(), "Kind of the step that measured"),
        _field("fingerprint", pa.string(), "Its fingerprint, equal in rows that share it"),
        _field("status", pa.string(), "done, failed or pending"),
        _field("error", pa.string(), "Why it failed; null unless it did"),
    ]
)
