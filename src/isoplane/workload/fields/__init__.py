"""Every field of Pods and virtual machines, and what becomes of it here: data.

Each kind has a module with three tables: what is HONOURED (and the test that shows it), what is WARNED of, and what is
REFUSED.  A test walks the schemas: a field in no table fails it, so none can be ignored without a word.
"""
