"""The IPVS back end: virtual servers, the dummy device and what IPVS cannot do itself.

Knows IPVS, its schedulers and its sysctls. Must not know the other back ends.
"""

from k8snetc.backends.base import Backend
from k8snetc.backends.ipvs.backend import Ipvs

BACKEND: Backend = Ipvs()
