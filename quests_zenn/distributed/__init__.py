"""The same work on other processes and machines, through Dask: needs the extra ``dask``.

>>> from quests_zenn.distributed import Workers, local_cluster
>>> from quests_zenn.entropy import entropy
>>> with local_cluster(2) as backend, Workers(1, remote=backend) as workers:  # doctest: +SKIP
...     entropy(x, workers=workers)
"""

from quests_zenn._core.parallel import Workers
from quests_zenn.distributed.backend import DaskBackend
from quests_zenn.distributed.cluster import connect, local_cluster

__all__ = ["DaskBackend", "Workers", "connect", "local_cluster"]
