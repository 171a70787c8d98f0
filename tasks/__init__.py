"""The Prefect layer: one file a stage, and what all of them share.

A stage's file holds a thin Prefect task around the function in `swiftcore.stages`. The rest: how a
flow run carries its recipe (`journey`), what tasks hand each other (`handles`), when a result is
reused (`caching`), how a step runs (`running`), and what MLflow is told (`spool`, `sink`,
`tracking`, `registry`).
"""
