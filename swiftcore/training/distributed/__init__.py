"""One training run in several processes, on one machine or more.

`team` starts the processes of this machine and ends them together. In each of them `world` says who
it is and lets it talk to the others, `sharing` gives it its part of each batch, and a strategy
(`strategies`) says how weights, gradients and optimizer states are spread. transformers and
accelerate are told of a single process: what happens between processes is decided, checked and
tested here, the same on CPU and GPU.

With one process none of this does anything, and torch.distributed is not imported.
"""
