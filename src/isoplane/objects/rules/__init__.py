"""What a schema cannot say of a kind: checks that look at several fields, those that several kinds share or that are long.

``report`` collects what they find; each kind's module in ``objects/resources`` says which of them are its own.  They run on
objects that passed the schema's type checks, so a field that is present has its type.
"""
