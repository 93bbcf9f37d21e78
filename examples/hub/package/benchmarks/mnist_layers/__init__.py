from ._mnist_layers import Problem


__all__ = ["Problem"]
