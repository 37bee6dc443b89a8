"""What on the page moves, answers back or can be taken away: blocks to set, values of charts, listings."""
