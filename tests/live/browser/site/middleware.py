from __future__ import annotations

from asgiref.sync import iscoroutinefunction, markcoroutinefunction


def strict_policy(get_response):
    """What the client must work under: nothing inline, nothing foreign."""
    assert iscoroutinefunction(get_response)

    async def middleware(request):
        response = await get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return markcoroutinefunction(middleware)


strict_policy.async_capable = True
strict_policy.sync_capable = False
