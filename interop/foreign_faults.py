"""What brokers do not do: patterns of `VERSION SCHEME: SCENARIO`, each with the reason.

Each is run all the same, and one that never fails makes the suite fail.
"""

FAULTS: dict[str, dict[str, str]] = {}
