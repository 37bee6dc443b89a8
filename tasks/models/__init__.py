"""Making and loading models: ``training`` from scratch, ``finetuning`` further, ``pretrained`` from elsewhere."""
