"""One clustering of points from many: co-association, cut by average linkage.

Fred and Jain (2005): points are as similar as the fraction of clusterings in which they share a
cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sagefm._types import Codes, Floats, Positions
from sagefm.stats.sampling import evenly

_MAX_POINTS = 4000
_SMALLEST = 0.02
"""Fraction of the points that a cluster has at least where the tree is cut."""
_MORE = 200
"""So many finer cuts are tried to find enough clusters of that size."""
_ROUNDS = 20


@dataclass(frozen=True)
class Consensus:
    """A clustering that several clusterings agree on."""

    labels: Codes
    """The cluster of each point."""
    membership: Floats
    """Points × clusters: mean over the clusterings of the probability that a point of its cluster
    there belongs to the cluster here. Rows sum to 1."""

    def merges(self) -> Floats:
        """Merge clusters pairwise, those that share most of their memberships first.

        Returns
        -------
        Merges × 3: two clusters and their similarity. The first of the two stands for both from
        then on.
        """
        onehot = np.eye(self.membership.shape[1])[self.labels]
        overlap = onehot.T @ self.membership
        sizes = onehot.sum(axis=0)
        alive, rows = list(np.flatnonzero(sizes)), []
        while len(alive) > 1:
            pairs = [(i, j) for at, i in enumerate(alive) for j in alive[at + 1 :]]
            similar = [
                (overlap[i, j] + overlap[j, i]) / (2 * min(sizes[i], sizes[j])) for i, j in pairs
            ]
            i, j = pairs[int(np.argmax(similar))]
            rows.append((i, j, max(similar)))
            overlap[i] += overlap[j]
            overlap[:, i] += overlap[:, j]
            sizes[i] += sizes[j]
            alive.remove(j)
        return np.array(rows, dtype=np.float64).reshape(-1, 3)


def consensus(
    clusterings: Sequence[Codes], n_clusters: int, *, max_points: int = _MAX_POINTS
) -> Consensus:
    """Find the clustering that several clusterings of the same points agree on.

    Parameters
    ----------
    clusterings
        For each the cluster of every point, numbers from 0.
    n_clusters
        Clusters to find, at most the number of points.
    max_points
        Points whose co-association is computed, spread evenly over the rows; the others are
        assigned by the clusters that they share with these.
    """
    some = evenly(len(clusterings[0]), max_points)
    chosen = [np.eye(int(codes.max()) + 1)[codes[some]] for codes in clusterings]
    of_some = [codes[some] for codes in clusterings]
    labels = _cut(chosen, n_clusters)
    n_found = len(np.unique(labels))
    for _ in range(_ROUNDS):
        assigned = _membership(of_some, chosen, labels, n_clusters).argmax(axis=1)
        if len(np.unique(assigned)) < n_found or (assigned == labels).all():
            break  # a small cluster would be lost, or nothing changes
        labels = assigned
    membership = _membership(clusterings, chosen, labels, n_clusters)
    every = membership.argmax(axis=1).astype(np.int64)
    if len(np.unique(every)) < n_found:
        every[some] = labels
    return Consensus(every, membership)


def _membership(
    clusterings: Sequence[Codes], chosen: Sequence[Floats], labels: Codes, n_clusters: int
) -> Floats:
    """Average over clusterings how likely each cluster is among the points of a point's cluster."""
    known = np.eye(n_clusters)[labels]
    total = np.zeros((len(clusterings[0]), n_clusters))
    for codes, of_chosen in zip(clusterings, chosen, strict=True):
        table = of_chosen.T @ known
        # A cluster without a chosen point says nothing of its points.
        sizes = table.sum(axis=1, keepdims=True)
        table = np.where(sizes > 0, table / np.maximum(sizes, 1), 1 / n_clusters)
        total += table[codes]
    total /= len(clusterings)
    return total


def _cut(members: Sequence[Floats], n_clusters: int) -> Codes:
    """Cut the tree of points so that there are enough clusters that are not tiny."""
    from scipy.cluster.hierarchy import fcluster, linkage

    n_points = len(members[0])
    if n_clusters == 1 or n_points == 1:
        return np.zeros(n_points, dtype=np.int64)
    tree = linkage(_distances(members), "average")
    for n_cut in range(n_clusters, min(n_points, n_clusters + _MORE) + 1):
        labels = fcluster(tree, n_cut, "maxclust").astype(np.int64) - 1
        sizes = np.bincount(labels)
        large = np.argsort(-sizes, kind="stable")[:n_clusters]
        if len(large) == n_clusters and sizes[large[-1]] >= _SMALLEST * n_points:
            return _attach(members, labels, large)
    return fcluster(tree, n_clusters, "maxclust").astype(np.int64) - 1


def _attach(members: Sequence[Floats], labels: Codes, large: Positions) -> Codes:
    """Give the points of tiny clusters to the large clusters that they share most with."""
    known = np.stack([labels == one for one in large], axis=1).astype(np.float64)
    shared = np.zeros(known.shape)
    for member in members:
        shared += member @ ((member.T @ known) / known.sum(axis=0))
    return np.asarray(np.where(known.any(axis=1), known.argmax(axis=1), shared.argmax(axis=1)))


def _distances(members: Sequence[Floats]) -> Floats:
    """Compute the fraction of clusterings that separate two points, condensed."""
    onehot = np.hstack(members).astype(np.float32)
    n_points = len(onehot)
    found = np.empty(n_points * (n_points - 1) // 2)
    end = 0
    for row in range(n_points - 1):
        start, end = end, end + n_points - 1 - row
        found[start:end] = 1 - onehot[row + 1 :] @ onehot[row] / len(members)
    return found
