"""Several answers to each question, scored, and the best of them kept as rows to train on.

A run has two halves. The first one draws answers and scores them, a batch of questions at a time,
into a file of candidates that an interrupted run goes on with. The second one chooses among them by
their scores alone and writes the rows: other thresholds on the same candidates cost nothing.

Source: rejection sampling as in Yuan et al., "Scaling Relationship on Learning Mathematical
Reasoning with Large Language Models", 2023; names and defaults are those of `swift sample` in
ms-swift.
"""
