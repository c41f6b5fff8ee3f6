"""What brokers do not do: patterns of `VERSION SCHEME: SCENARIO`, each with the reason.

Such a scenario is run all the same. If it passes, the entry has to go, unless its reason begins
with `sometimes `.
"""

FAULTS: dict[str, dict[str, str]] = {}
