def mosquitto_cases(*a): return []
def whimbrel_cases(*a): return []
