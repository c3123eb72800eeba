// `LifecycleError` is part of the interface of every store that is a service.
@_exported public import ServiceSupport
