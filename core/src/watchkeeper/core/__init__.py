"""The contracts that all components share.

=========================  ========================================================================
``names``                  names of models, servers and training runs
``settings``               settings from the environment; ``persisted``: those of the local system
``signature``, ``answer``  columns of requests and answers; how scores become an answer
``version``                the files of a version and their manifest
``record``, ``spool``      lines that the server writes, and the folder that contains them
``prediction_id``          signed ids of predictions
``policies``               values that control drift detection, rollouts and retention
``events``                 decisions; ``drift_report``: the result for one window
``statistics``             statistics that several components use
``retry``, ``exit_codes``  waiting for a service; exit codes of programs
``logs``, ``folders``      logging; private folders
``field_docs``             descriptions of policies, settings and events for the documentation
=========================  ========================================================================
"""
