"""The serving runtime: MLServer hosts the process, the request path is Watchkeeper's own.

Read a request in this order: ``http`` or ``grpc``, ``dataplane``, ``contract``,
``micro_batching``, ``version``, ``engine``, ``recorder``, ``spool``.
"""
