"""The ledger: predictions, labels, drift reports, episodes and events in one SQL database.

Only this package imports :mod:`watchkeeper.ledger.tables`. Each module answers the questions of
others with typed results:

===================  ==============================================================
``records``          stores what a sidecar has shipped
``observations``     reads predictions and labelled rows
``counts``           counts requests, labels and reports
``lookup``           finds one prediction with its labels and attempts
``events``           stores and reads decisions
``episodes``         stores and reads episodes and training attempts
``concept_blocks``   stores and reads the live losses of blocks of labelled rows
``reports``          stores and reads drift reports
``spools``           says how far spools are shipped
``gaps``             stores and counts requests without a record
``deletions``        deletes everything about a subject on request
``retention``        removes old rows
``users``            grants rights to the database users of the components
``errors``           the errors of a database that does not answer or refuses a value
===================  ==============================================================
"""

from watchkeeper.ledger.database import Ledger, migrate

__all__ = ["Ledger", "migrate"]
