ProcessEngine = None
