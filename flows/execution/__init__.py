"""Running: ``graph`` says what depends on what, ``engine`` decides, ``runners`` do the work.

``plan`` looks ahead, ``watch`` tells how a run goes, ``publish`` writes what it leaves.
"""
