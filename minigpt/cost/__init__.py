"""What models cost: parameters, floating-point operations, generation, scaling laws, published sizes.

Begin with ``counting``, the closed forms.
"""
