"""One product where the parameters are several matrices."""


def joined(x, kernel):
    """x [..., D] with all of kernel [P, D, F] side by side: [N, P, F] over flat rows.

    The parameters stay P matrices (Muon orthogonalises each); one wide product is faster than P
    narrow ones, and a kernel then reads all parts of a row at once.
    """
    parts, d, f = kernel.shape
    wide = kernel.astype(x.dtype).transpose(1, 0, 2).reshape(d, parts * f)
    return (x.reshape(-1, d) @ wide).reshape(-1, parts, f)
