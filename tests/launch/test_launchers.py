"""The launchers: free of shellcheck's complaints, and their dry runs say what they would do."""

import pathlib
import shutil
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parent.parent.parent / 'launch'
SCRIPTS = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])


def _run(*words, **environment):
  result = subprocess.run(['bash', *map(str, words)], capture_output=True, text=True,
                          env={'PATH': '/usr/bin:/bin', **environment})
  return result.returncode, result.stdout, result.stderr


@pytest.mark.skipif(shutil.which('shellcheck') is None, reason='shellcheck is not installed')
@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  result = subprocess.run(['shellcheck', '-x', f'launch/{script.name}'], cwd=LAUNCH.parent,
                          capture_output=True, text=True)
  assert result.returncode == 0, result.stdout


def test_a_local_cluster_tells_its_processes_of_each_other():
  code, out, _ = _run(LAUNCH / 'local_cluster.sh', '--dry-run', 2, 4, 'adm', 'train', ADM_PORT='99')
  assert code == 0 and out.splitlines() == [
      f"JAX_PLATFORMS=cpu XLA_FLAGS='--xla_force_host_platform_device_count=4' adm train "
      f'--coordinator 127.0.0.1:99 --num-processes 2 --process {i}' for i in (0, 1)]


@pytest.mark.parametrize('codes, wanted', [
    ((0, 0), 0), ((0, 3), 3), ((134, 75), 75), ((75, 134), 75), ((75, 2), 2), ((1, 75), 1)])
def test_a_local_cluster_ends_with_a_mistake_before_a_restart(codes, wanted):
  # The last flag is the process's number.
  script = f'shift $(($# - 1)); codes=({codes[0]} {codes[1]}); exit "${{codes[$1]}}"'
  assert _run(LAUNCH / 'local_cluster.sh', 2, 1, 'bash', '-c', script, ADM_PORT='99')[0] == wanted


def test_a_tpu_slice_is_made_installed_trained_on_and_followed():
  code, out, _ = _run(LAUNCH / 'tpu_pod.sh', '--dry-run', 'adm1', 'run', '--config', 'a.py',
                      '--workdir', 'gs://bucket/a', ADM_TPU_TYPE='v5litepod-16', ADM_SPOT='1')
  create, archive, copy, install, start, follow = out.splitlines()
  assert code == 0
  assert 'tpu-vm create adm1' in create and 'v5litepod-16' in create and '--spot' in create
  assert archive.startswith('git -C') and 'scp' in copy and '--worker all' in copy
  assert 'ssh adm1' in install and 'adm_environment' in install
  assert '--worker all' in start and 'a.py' in start and 'gs://bucket/a' in start
  assert '--worker 0' in follow and 'train.log' in follow


@pytest.mark.parametrize('words, match', [
    (['adm1', 'run', '--workdir', 'runs/a'], 'no --workdir gs://'), (['adm1'], 'usage'),
    (['adm1', 'copy', 'gs://b'], 'usage'), (['adm1', 'frob'], 'usage')])
def test_a_mistake_with_a_tpu_slice_is_one_line(words, match):
  code, out, err = _run(LAUNCH / 'tpu_pod.sh', '--dry-run', *words)
  assert code == 2 and match in err and err.count('\n') == 1 and not out


def test_slurm_starts_a_process_a_gpu_and_requeues():
  code, out, _ = _run(LAUNCH / 'slurm.sbatch', '--dry-run', '--config', 'a.py', '--workdir', 'b',
                      ADM_ROOT='/adm')
  assert code == 0 and 'cd /adm && srun' in out and 'adm train --config a.py --workdir b' in out
  assert 'scontrol requeue' in out
  options = [line for line in (LAUNCH / 'slurm.sbatch').read_text().splitlines()
             if line.startswith('#SBATCH')]
  # JAX gives a Slurm task one GPU.
  assert '#SBATCH --gpus-per-node=8' in options and '#SBATCH --ntasks-per-node=8' in options


def test_the_jobset_restarts_on_75_and_not_on_mistakes():
  yaml = pytest.importorskip('yaml')
  job = yaml.safe_load((LAUNCH / 'gke.yaml').read_text())
  assert (job['kind'], job['apiVersion']) == ('JobSet', 'jobset.x-k8s.io/v1alpha2')
  spec = job['spec']['replicatedJobs'][0]['template']['spec']
  rule, = spec['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [1, 2]
  container, = spec['template']['spec']['containers']
  assert container['command'] == ['adm', 'train'] and spec['completionMode'] == 'Indexed'
