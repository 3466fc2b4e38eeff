"""A file of ``ray up``, as far as what its nodes have."""

CLUSTER = """
max_workers: 10
available_node_types:
  head: {resources: {CPU: 8}}
  l4: {max_workers: 8, resources: {CPU: 8, GPU: 1, "accelerator_type:L4": 1}}
  a100: {max_workers: 2, resources: {CPU: 96, GPU: 8, "accelerator_type:A100": 1}}
head_node_type: head
"""
