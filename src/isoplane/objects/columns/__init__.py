"""What ``kubectl get`` prints: column definitions and the function that fills a row.

``printer`` has the form and what rows are made of; each kind's module in ``objects/resources`` has its own columns, the long
ones here.  Source: Kubernetes pkg/printers, and the printer columns of the custom kinds' definitions.
"""
