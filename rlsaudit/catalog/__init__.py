"""The catalog: frozen values (``model``), the only queries that read them (``load``), and who may do what (``visibility``)."""
