"""Template tags that ask for the viewer past the ways of Django's own."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.loader import render_to_string

register = template.Library()


@register.simple_tag(takes_context=True)
def by_key(context: Any) -> str:
    try:
        return "STAFF" if context["user"].is_staff else ""
    except Exception:
        return ""


@register.simple_tag(takes_context=True)
def by_get(context: Any, name: str = "user") -> str:
    value = context.get(name)
    return "STAFF" if getattr(value, "is_staff", value) else ""


@register.simple_tag(takes_context=True)
def by_membership(context: Any, name: str) -> str:
    return "STAFF" if name in context else ""


@register.simple_tag(takes_context=True)
def by_default(context: Any, name: str) -> str:
    return "STAFF" if context.setdefault(name, "") else ""


@register.simple_tag(takes_context=True)
def by_attribute(context: Any) -> str:
    request = getattr(context, "request", None)
    return "STAFF" if request is not None and request.user.is_staff else ""


@register.simple_tag(takes_context=True)
def by_flattening(context: Any, name: str) -> str:
    return "STAFF" if context.flatten().get(name) else ""


@register.simple_tag(takes_context=True)
def by_layers(context: Any) -> str:
    return next(("STAFF" for layer in context if getattr(layer.get("user"), "is_staff", False)), "")


@register.simple_tag(takes_context=True)
def by_another_template(context: Any) -> str:
    return render_to_string("plain.html", context.flatten())


@register.simple_tag(takes_context=True)
def by_another_request(context: Any) -> str:
    return render_to_string("plain.html", {}, request=context.get("request"))


@register.inclusion_tag("plain.html", takes_context=True)
def included(context: Any) -> Any:
    return context


@register.inclusion_tag("plain.html", takes_context=True)
def included_flat(context: Any) -> dict[str, Any]:
    return dict(context.flatten())


@register.inclusion_tag("plain.html", takes_context=True)
def included_named(context: Any) -> dict[str, Any]:
    return {"user": context.get("user")}


@register.inclusion_tag("by_attribute.html")
def included_bare() -> dict[str, Any]:
    return {}


@register.filter
def staff(value: Any) -> str:
    try:
        return "STAFF" if value.is_staff else ""
    except Exception:
        return ""


@register.tag
def quietly(parser: Any, token: Any) -> template.Node:
    nodes = parser.parse(("endquietly",))
    parser.delete_first_token()
    return _Quietly(nodes)


class _Quietly(template.Node):
    def __init__(self, nodes: Any) -> None:
        self.nodes = nodes

    def render(self, context: Any) -> str:
        try:
            return str(self.nodes.render(context))
        except Exception:
            return ""
