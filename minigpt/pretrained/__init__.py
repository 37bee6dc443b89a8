"""Any causal language model of Transformers' interface: scored, continued, trained further, taken apart.

Begin with ``causal_lm``. ``limits`` stands alone so that a training does not depend on code that scores.
"""
