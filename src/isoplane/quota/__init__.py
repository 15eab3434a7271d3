"""Quota: who may run, who must wait, and who leaves for whom. Pure.

In the order of a decision:

    charge.py   a workload → what it takes of a quota, by resource name
    scopes.py   which quotas of its namespace count it
    lines.py    every limit the charge would touch, and how short each would be
    decide.py   Admit | Wait | Deny
    victims.py  the smallest legal set that makes room
    ledger.py   the state all of this reads: charges, holds, what is used, held and being given back
    explain.py  the same decision for people and programs
    audit.py    the same decision for the record

Around it:

    engine.py   events in, effects out: what a shell talks to
    release.py  who comes in once there is room
    places.py   what is kept for a workload that restarts
    census.py   who is charged and who waits, from the objects that are there
    outlook.py  who comes in next, and after whom

A shell (the server's quota_admission) carries the effects out; nothing here knows of it.
"""
