"""Variables that builds have without anybody setting them."""

from swarmd.runtime.images.manifests import Platform

# Proxies, which RUN has when they are given, whether or not an ARG asks for them; they count for no key of the cache.
PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
PREDEFINED = PROXIES | {"SOURCE_DATE_EPOCH"}


def platform_values(prefix: str, platform: Platform) -> dict[str, str]:
    return {
        f"{prefix}PLATFORM": str(platform),
        f"{prefix}OS": platform.os,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }
