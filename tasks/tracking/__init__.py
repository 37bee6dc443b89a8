"""MLflow: ``tracker`` logs models, exercises and chapters as ``documents``, through an ``outbox`` that keeps them."""
