// `LifecycleError` is part of the interface of every server.
@_exported public import ServiceSupport
