"""What the commands of ``chapter`` do, one module each; ``flows.cli`` reads the command line."""
