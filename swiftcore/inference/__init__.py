"""Answering rows or a person: the work behind `swift infer`."""
