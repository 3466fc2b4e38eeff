"""What ran is read from measures and records alone."""

from synthetic import Bed, experiment

from weakteach.results.ran import records_of, what_ran
from weakteach.study.manifest import Manifest, StudyInfo

INFO = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)


def test_only_what_was_measured_is_listed(tmp_path):
    bed = Bed(tmp_path)
    one = experiment(
        "grid",
        "fraction",
        bed.reward("base", 0, {"a": 1.0, "b": 2.0}),
        bed.reward("weak", 1, {"a": 1.0, "b": 2.0}, weak="opt-1m", fraction="1/8"),
        bed.pending("accuracy", "human", 1, weak="never-asked"),
        bed.pending("reward", "weak", 7, weak="opt-7m", student="opt-9m", fraction="1/3", beta="9"),
        bed.pending("verdicts", "weak", 7, of="a judge"),
    )
    steps = tuple((measure.step, measure.fingerprint) for measure in one.measures)
    manifest = Manifest(INFO, (one,), steps)
    facts = dict(what_ran(manifest, records_of(bed.store, manifest)).facts)
    assert facts["betas"] == "0.4"
    assert facts["teachers"] == "opt-1m"
    assert facts["labeled fractions"] == "1/8"
    assert facts["seeds"] == "0, 1"
    assert facts["students"] == "opt-230k"
    assert facts["gold"] == "world, exact"
    assert facts["judge"] == "none"


def test_settings_dtypes_and_versions_are_those_of_the_records(tmp_path):
    bed = Bed(tmp_path)
    model = {"class": "Model", "content": "sha256:0", "label": "opt-45k"}
    recipe = {"schedule": {"rate": 0.1}}
    versions = {"packages": {"torch": "2.9"}, "python": "3.12.1", "code": {"source": "aaa"}}
    steps = []

    def put(step, parameters, facts=None, **record):
        one = bed.put(step, facts or {}, {}, parameters=parameters, **{**versions, **record})
        steps.append((step, one))
        return {"step": step, "fingerprint": one}

    start = put("Sft", {"start": model, "recipe": recipe})
    put("Dpo", {"start": start, "recipe": {"beta": 0.2}}, packages={"torch": "2.8"})
    put("WeakLabels", {"dtype": "bfloat16"})
    put("HeldOut", {"test_pairs": 40})
    put(
        "Pairs",
        {"source": {"class": "FileSource", "name": "mine"}, "max_tokens": 64},
        {"rows": 5, "pairs": 4, "quarantined": 1},
    )
    manifest = Manifest(INFO, (), (*steps, ("Sft", "not-there")))
    ran = what_ran(manifest, records_of(bed.store, manifest))
    settings = dict(ran.settings)
    assert settings["Sft of opt-45k"] == '{"schedule": {"rate": 0.1}}'
    assert settings["Dpo of opt-45k"] == '{"beta": 0.2}'
    assert settings["dtype of WeakLabels"] == "bfloat16"
    assert settings["test pairs"] == "40"
    assert settings["longest pair in tokens"] == "64"
    assert ran.data == ({"source": "mine", "rows": 5, "pairs": 4, "quarantined": 1},)
    found = dict(ran.versions)
    assert found["torch"] == "2.9 (4 steps), 2.8 (1 steps)"
    assert found["python"] == "3.12.1"
    assert found["weakteach source"] == "aaa"
    assert ran.device_seconds == 5 * 3.0
