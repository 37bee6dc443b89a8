"""MLflow: ``tracker`` logs models, exercises and chapters as ``documents``, through an ``outbox`` that keeps them.

``runs`` is what they become there, ``artifacts`` their files; ``client`` opens the connection.
"""
