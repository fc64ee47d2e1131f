from __future__ import annotations

from asgiref.sync import iscoroutinefunction, markcoroutinefunction


def strict_policy(get_response):
    """What patches must work under: nothing inline, nothing foreign, no markup from strings that nobody vouches for."""
    assert iscoroutinefunction(get_response)

    async def middleware(request):
        response = await get_response(request)
        policy = "default-src 'self'; connect-src 'self' http://127.0.0.1:*; require-trusted-types-for 'script'"
        response["Content-Security-Policy"] = policy
        return response

    return markcoroutinefunction(middleware)


strict_policy.async_capable = True
strict_policy.sync_capable = False
