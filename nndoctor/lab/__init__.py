"""The lab: deeper examinations on demand, on a model, its loss and fixed batches, with plain data as the result."""

from nndoctor.lab.patient import Evaluation as Evaluation
from nndoctor.lab.patient import Patient as Patient
from nndoctor.lab.patient import Subject as Subject
from nndoctor.lab.progress import Progress as Progress
from nndoctor.lab.progress import progress_bars as progress_bars
from nndoctor.lab.results import Result as Result
from nndoctor.lab.sources import SourceError as SourceError
from nndoctor.lab.sources import load_patient as load_patient
from nndoctor.lab.workbook import Workbook as Workbook
