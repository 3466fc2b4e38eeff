"""The table of a study's results: one row per arm and role of the student."""

import pyarrow as pa


def _field(name: str, kind: pa.DataType, doc: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


RESULTS_SCHEMA = pa.schema(
    [
        _field("arm", pa.string(), "Name of the arm: weak model, fraction and seed"),
        _field("weak", pa.string(), "Model that the arm's teacher starts from"),
        _field("student", pa.string(), "Model that is aligned"),
        _field("fraction", pa.float64(), "Labeled share of the training pairs"),
        _field("fraction_text", pa.string(), "The fraction as it was asked for, such as 1/16"),
        _field("seed", pa.int64(), "Seed of the split, of training and of sampling"),
        _field(
            "role",
            pa.string(),
            "What the student learned from: base (nothing yet), sft (SFT alone on human labels), "
            "human, gold or weak (SFT and DPO on these labels of the unlabeled part)",
        ),
        _field("gold_reward", pa.float64(), "Mean gold reward of the student's responses"),
        _field("gold_reward_se", pa.float64(), "Its standard error over test prompts"),
        _field("test_prompts", pa.int64(), "Test prompts that the student answered"),
        _field("garbage", pa.float64(), "Share of unreadable words; embedded domains only"),
        _field(
            "minus_human",
            pa.float64(),
            "Mean difference in gold reward to the arm's human role on the same test prompts",
        ),
        _field("minus_human_se", pa.float64(), "Its standard error over test prompts, paired"),
        _field(
            "student_accuracy",
            pa.float64(),
            "Share of test pairs on which the student's implicit reward agrees with human choices",
        ),
        _field("student_accuracy_pairs", pa.int64(), "Test pairs of student_accuracy"),
        _field(
            "agreement",
            pa.float64(),
            "Share of unlabeled pairs on which the teacher's labels agree with human choices; "
            "weak role only, as all below",
        ),
        _field("agreement_pairs", pa.int64(), "Unlabeled pairs of agreement"),
        _field(
            "gold_with_weak",
            pa.float64(),
            "Share of mismatches between weak labels and human choices where gold sides with weak",
        ),
        _field("mismatches", pa.int64(), "Unlabeled pairs on which the two differ"),
        _field(
            "teacher_accuracy",
            pa.float64(),
            "Share of test pairs on which the teacher's labels agree with human choices",
        ),
        _field("teacher_accuracy_pairs", pa.int64(), "Test pairs of teacher_accuracy"),
        _field(
            "teacher_accuracy_gold",
            pa.float64(),
            "Share of the same test pairs on which the teacher's labels agree with gold",
        ),
        _field(
            "fingerprint",
            pa.string(),
            "Fingerprint of the step behind the row's gold reward (student accuracy if there is "
            "no gold); equal in rows that share a baseline",
        ),
        _field("status", pa.string(), "done, failed or pending"),
        _field("error", pa.string(), "Why the role failed; null unless it did"),
    ]
)
