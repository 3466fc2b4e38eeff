"""Labeling asks for the GPUs that it is given. They exist in Ray's eyes alone."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from weakteach.artifacts.store import Store
from weakteach.labeling.shards import Stream
from weakteach.labeling.stream import stream_chunks
from weakteach.models.resources import Resources


class WhichGpu:
    """Tells for each row how many GPUs its process was given, in place of a label."""

    def load(self):
        return len(ray.get_gpu_ids())

    def process(self, gpus, chunk):
        return chunk.append_column("gpus", [[gpus] * len(chunk)])


def label_on_gpus(storage):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False)
    pq.write_table(pa.table({"pair_id": [str(n) for n in range(100)]}), f"{storage}/pairs.parquet")
    for actors, pairs_each in ((0, 100), (2, 2)):
        shards = f"{storage}/shards-{actors}"
        stream = Stream(
            Store(storage), f"{storage}/pairs.parquet", shards, WhichGpu(), chunk_rows=pairs_each
        )
        made = stream_chunks(stream, Resources(label_actors=actors, gpus=1))
        rows = [row for table in made.tables() for row in table.to_pylist()]
        assert [row["pair_id"] for row in rows] == [str(n) for n in range(100)]
        assert {row["gpus"] for row in rows} == {1}
    print("labeled")


def test_tasks_and_actors_label_on_the_gpus_that_they_ask_for(tmp_path):
    run = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True)
    assert "labeled" in run.stdout, run.stderr


if __name__ == "__main__":
    label_on_gpus(*sys.argv[1:])
