"""Log-probabilities of both responses of a pair: TRL's reference pass against ours, side by side.

    python tests/benchmarks/labeling_vs_trl.py --data harmless-base.jsonl.gz

Both read the same weights (SmolLM2-135M, if no other is named) and the same pairs. TRL's side is
what its DPOTrainer runs to precompute reference log-probabilities: its own tokenization, collator,
order of rows and fused head. Systems take turns, repeat by repeat; figures are medians. CPU seconds
(all threads) stand beside wall seconds, since other load on the machine moves the latter more. The
share of the peak is that of a 1024x1024 float32 matrix product in the same run, by CPU time; our
operations are counted without attention and normalization.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pyarrow as pa
import torch
from cyclopts import Parameter
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.models.loading import Weights, load_causal, weights_folder
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.models.tokens import PairTokens, load_tokenizer, pair_tokens
from weakteach.preferences.sources import file_source
from weakteach.run.terminal import launch, script
from weakteach.steps.data import Dequantized, Pairs

SAMPLE = Path(__file__).parents[3] / "shared/data/hh-rlhf/harmless-base.jsonl.gz"
OURS = "weakteach"


@dataclass(frozen=True)
class Figures:
    """Of one system in one setting; seconds are for all pairs."""

    dtype: str
    threads: int
    system: str
    wall_seconds: float
    cpu_seconds: float
    pairs_per_second: float
    faster_wall: float
    faster_cpu: float
    max_difference: float
    choices_changed: int
    peak_share: float | None


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def peak_rate() -> float:
    """Multiply-adds count twice; per CPU second, the best of ten."""
    a, b = torch.randn(2, 1024, 1024)
    return max(2 * 1024**3 / timed(lambda: a @ b)[1] for _ in range(10))


def operations(model: Any, pairs: list[PairTokens]) -> float:
    """Of the matrix products with weights that the pairs need where each prompt is read once."""
    weights = sum(
        module.weight.numel()
        for module in model.base_model.modules()
        if isinstance(module, torch.nn.Linear)
    )
    responses = sum(len(p.response_1) + len(p.response_2) for p in pairs)
    tokens = responses + sum(len(p.prompt) for p in pairs)
    return 2.0 * (weights * tokens + model.get_output_embeddings().weight.numel() * responses)


def trl_trainer(folder: Path, texts: pa.Table, dtype: str, out: str) -> DPOTrainer:
    columns = {"prompt": "prompt", "chosen": "response_1", "rejected": "response_2"}
    return DPOTrainer(
        model=str(folder),
        args=DPOConfig(
            output_dir=out,
            max_length=None,
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            model_init_kwargs={"dtype": dtype},
        ),
        train_dataset=Dataset.from_dict({k: texts[v].to_pylist() for k, v in columns.items()}),
        processing_class=load_tokenizer(folder),
    )


def trl_pass(trainer: DPOTrainer, batch: int) -> np.ndarray:
    """As the trainer does where it precomputes reference log-probabilities."""
    rows = DataLoader(
        trainer.train_dataset,  # type: ignore[arg-type]  # typed as optional
        batch_size=batch,
        collate_fn=trainer.data_collator,
    )
    sums = [
        torch.stack(trainer.compute_ref_log_probs(trainer.ref_model, inputs), dim=1)
        for inputs in trainer.accelerator.prepare(rows)
    ]
    return torch.cat(sums).double().numpy()


def compare(
    folder: Path,
    texts: pa.Table,
    dtype: str,
    threads: int,
    batches: list[int],
    batch_tokens: int,
    repeats: int,
    exact: np.ndarray,
) -> list[Figures]:
    torch.set_num_threads(threads)
    columns = (texts[name].to_pylist() for name in ("prompt", "response_1", "response_2"))
    pairs = pair_tokens(load_tokenizer(folder), *columns)
    model = load_causal(Weights(str(folder)), dtype)
    with tempfile.TemporaryDirectory() as out:
        trainer = trl_trainer(folder, texts, dtype, out)
    systems: dict[str, Callable[[], np.ndarray]] = {
        OURS: lambda: pair_logprobs(model, pairs, batch_tokens)
    }
    for batch in batches:
        systems[f"TRL, batch {batch}"] = partial(trl_pass, trainer, batch)
    pair_logprobs(model, pairs[:1], batch_tokens)  # warm
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    results: dict[str, np.ndarray] = {}
    peaks = []
    for _ in range(repeats):
        for name, run in systems.items():
            if name == OURS:
                peaks.append(peak_rate())
            wall, cpu, results[name] = timed(run)
            times[name].append((wall, cpu))
            Console(stderr=True).log(f"{name}: {wall:.1f} s, CPU {cpu:.1f} s")
    wall_of = {name: median(wall for wall, _ in t) for name, t in times.items()}
    cpu_of = {name: median(cpu for _, cpu in t) for name, t in times.items()}
    share = operations(model, pairs) / cpu_of[OURS] / median(peaks)
    likelier = exact[:, 0] > exact[:, 1]
    return [
        Figures(
            dtype=dtype,
            threads=threads,
            system=name,
            wall_seconds=wall_of[name],
            cpu_seconds=cpu_of[name],
            pairs_per_second=len(pairs) / wall_of[name],
            faster_wall=wall_of[name] / wall_of[OURS],
            faster_cpu=cpu_of[name] / cpu_of[OURS],
            max_difference=float(np.abs(sums - exact).max()),
            choices_changed=int(((sums[:, 0] > sums[:, 1]) != likelier).sum()),
            peak_share=share if name == OURS else None,
        )
        for name, sums in results.items()
    ]


def show(figures: list[Figures], what: str) -> None:
    table = Table(title=f"{what}; differences are against ours in float32")
    table.add_column("")
    for column in ("wall s", "CPU s", "pairs/s", "ours faster by", "by CPU time", "max |Δ log p|",
                   "likelier response changed", "of fp32 peak"):  # fmt: skip
        table.add_column(column, justify="right")
    before = None
    for row in figures:
        setting = f"{row.dtype}, {row.threads} thread{'s' * (row.threads > 1)}"
        if setting != before:
            table.add_section()
            table.add_row(f"[bold]{setting}")
        before = setting
        table.add_row(
            row.system,
            f"{row.wall_seconds:.1f}",
            f"{row.cpu_seconds:.1f}",
            f"{row.pairs_per_second:.2f}",
            f"{row.faster_wall:.2f}x" if row.system != OURS else "",
            f"{row.faster_cpu:.2f}x" if row.system != OURS else "",
            f"{row.max_difference:.1e}",
            f"{row.choices_changed}",
            f"{row.peak_share:.0%}" if row.peak_share is not None else "",
        )
    Console(width=120).print(table)


def main(
    data: Annotated[Path, Parameter(help="A file of comparisons, such as HH-RLHF.")] = SAMPLE,
    model: Annotated[str, Parameter(help="Its name, folder or GGUF file.")] = "smollm2-135m",
    pairs: Annotated[int, Parameter(help="Taken evenly from the file.")] = 16,
    threads: Annotated[str, Parameter(help="Comma-separated.")] = "1",
    dtypes: Annotated[str, Parameter(help="float32, bfloat16 (weights).")] = "float32",
    batches: Annotated[str, Parameter(help="TRL's batch sizes.")] = "1,4,8,16",
    batch_tokens: Annotated[int, Parameter(help="Ours.")] = Resources.batch_tokens,
    repeats: int = 2,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("labeling_vs_trl.json"),
) -> None:
    """TRL's reference pass against weakteach's."""
    if not data.is_file():
        raise UserError(f"There is no {data}; give --data a file of HH-RLHF")
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as storage:
        store = Store(storage)
        found = find_model(model)
        plain = Dequantized(found) if found.is_gguf else None
        if plain:
            obtain(store, plain, Resources())
        folder = store.local(plain) if plain else weights_folder(found)
        kept = Pairs(file_source(data), (plain or tokenizer_of(found),))
        obtain(store, kept, Resources())
        table = kept.all.read(store)
        texts = table.take(np.linspace(0, len(table) - 1, pairs).astype(int))
        columns = (texts[name].to_pylist() for name in ("prompt", "response_1", "response_2"))
        tokens = pair_tokens(load_tokenizer(folder), *columns)
        exact = pair_logprobs(load_causal(Weights(str(folder))), tokens, batch_tokens)
        for dtype in dtypes.split(","):
            for count in map(int, threads.split(",")):
                sizes = [int(size) for size in batches.split(",")]
                figures += compare(folder, texts, dtype, count, sizes, batch_tokens, repeats, exact)
    show(figures, f"{pairs} pairs, {found.label}")
    facts = {
        "pairs": pairs,
        "mean_prompt_tokens": float(np.mean([len(p.prompt) for p in tokens])),
        "mean_response_tokens": float(
            np.mean([len(r) for p in tokens for r in (p.response_1, p.response_2)])
        ),
        "batch_tokens": batch_tokens,
        "repeats": repeats,
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    out.write_text(json.dumps({**facts, "figures": [asdict(f) for f in figures]}, indent=1))


if __name__ == "__main__":
    launch(script(main))
