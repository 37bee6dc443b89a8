"""What stands beside the answers: words explained once, numbers of a longer run, which sizes were trained."""
