"""The launchers: free of shellcheck's complaints, their dry runs say what they would do, and among
stand-ins for gcloud, srun and uv they start again when that helps, and only then."""

import os
import pathlib
import re
import shutil
import subprocess
import sysconfig
import time

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parent.parent.parent / 'launch'
SCRIPTS = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])
SYSTEM = '/usr/bin:/bin'


def _run(*words, **environment):
  result = subprocess.run(['bash', *map(str, words)], capture_output=True, text=True, timeout=60,
                          env={'PATH': SYSTEM, **environment})
  return result.returncode, result.stdout, result.stderr


def _commands(folder, **scripts):
  """Makes executables of the scripts; returns a PATH on which they come first."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, script in scripts.items():
    (folder / name).write_text(f'#!/usr/bin/env bash\n{script}\n')
    (folder / name).chmod(0o755)
  return f'{folder}:{SYSTEM}'


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  # Its package puts it beside python, whether or not the environment is activated.
  path = os.pathsep.join([sysconfig.get_path('scripts'), os.environ['PATH']])
  shellcheck = shutil.which('shellcheck', path=path)
  assert shellcheck, "no shellcheck: pip install '.[test]'"
  result = subprocess.run([shellcheck, '-x', f'launch/{script.name}'], cwd=LAUNCH.parent,
                          capture_output=True, text=True)
  assert result.returncode == 0, result.stdout


# The environment


def _environment(tmp_path, **scripts):
  """Sources environment.sh where all Pythons are old and the other commands are `scripts`."""
  # This one answers nothing but what `scripts` lets it do as pip.
  old = '[ "$1 $2" = "-m pip" ] && exec fake-pip "${@:3}"; exit 1'
  path = _commands(tmp_path / 'bin', **dict.fromkeys(
      ['python3', 'python3.11', 'python3.12', 'python3.13'], old) | scripts)
  # Of the system's commands only these: it may have a uv.
  for name in 'bash cat chmod cksum cp find grep ls mkdir mktemp rm touch'.split():
    (tmp_path / 'bin' / name).symlink_to(shutil.which(name))
  path = path.split(':')[0]
  (tmp_path / 'pyproject.toml').touch()
  script = f'set -eu; . {LAUNCH}/environment.sh; adm_environment "$0" ""; command -v python'
  return lambda **more: _run('-c', script, tmp_path, PATH=path, HOME=str(tmp_path), **more)


# A uv whose Python makes an environment with a python that does whatever it is asked.
UV = r'''
echo "$*" >> "$HOME/uv.log"
[ "$*" = "python find --system 3.12" ] || exit 0
mkdir -p "$HOME/kept"
cat > "$HOME/kept/python" <<"END"
#!/usr/bin/env bash
[ "$1 $2" = "-m venv" ] || exit 1
mkdir -p "$3/bin" && touch "$3/pyvenv.cfg"
echo "PATH=$3/bin:\$PATH" > "$3/bin/activate"
printf "#!/bin/sh\n" > "$3/bin/python"
chmod +x "$3/bin/python"
END
chmod +x "$HOME/kept/python"
echo "$HOME/kept/python"'''


def test_where_all_pythons_are_old_uv_fetches_one(tmp_path):
  source = _environment(tmp_path, uv=UV)
  code, out, err = source()
  assert code == 0 and out.endswith(f'\n{tmp_path}/.venv/bin/python\n')
  assert 'tried python3.12 python3.13 python3.11 python3' in err and 'with uv' in err
  assert (tmp_path / 'uv.log').read_text().splitlines() == [
      'python install 3.12', 'python find --system 3.12']
  (tmp_path / 'uv.log').unlink()
  code, _, err = source()
  assert code == 0 and not err and not (tmp_path / 'uv.log').exists()  # the second time it is there


def test_where_uv_is_missing_pip_fetches_it_and_nothing_of_it_stays(tmp_path):
  (tmp_path / 'tmp').mkdir()
  (tmp_path / 'uv').write_text(f'#!/usr/bin/env bash\n{UV}')
  pip = '''while [ "$1" != --target ]; do shift; done
    [ "$3" = uv ] && mkdir "$2/bin" && cp "$HOME/uv" "$2/bin/uv" && chmod +x "$2/bin/uv"'''
  code, out, _ = _environment(tmp_path, **{'fake-pip': pip})(TMPDIR=str(tmp_path / 'tmp'))
  assert code == 0 and out.endswith(f'\n{tmp_path}/.venv/bin/python\n')
  assert not list((tmp_path / 'tmp').iterdir())


@pytest.mark.parametrize('scripts', [
    {'fake-pip': 'echo WARNING; echo "no network" >&2; exit 1'},
    {'uv': 'echo "error: nothing there"; echo "no network" >&2; exit 1'}],
    ids=['pip', 'uv'])
def test_where_nothing_can_be_fetched_one_line_says_why(tmp_path, scripts):
  code, out, err = _environment(tmp_path, **scripts)()
  fetching, failed = err.splitlines()
  assert code == 2 and not out and 'fetching' in fetching
  assert '(no network)' in failed and 'ADM_PYTHON' in failed


def test_a_named_python_that_is_old_is_not_replaced(tmp_path):
  code, _, err = _environment(tmp_path, uv=UV)(ADM_PYTHON='python3.12')
  assert code == 2 and '(tried python3.12)' in err and err.count('\n') == 1
  assert not (tmp_path / 'uv.log').exists()


def _their_environment(folder, answers):
  """One that was made by hand, with a file of its owner's; its Python says if it will do."""
  _commands(folder / 'bin', python='exit 0' if answers else 'exit 1')
  (folder / 'bin' / 'activate').write_text(f'PATH={folder}/bin:$PATH\n')
  (folder / 'pyvenv.cfg').touch()
  (folder / 'notes.txt').write_text('mine')


def test_an_environment_that_somebody_made_is_used_and_nothing_of_it_is_lost(tmp_path):
  _their_environment(tmp_path / 'theirs', answers=True)
  source = _environment(tmp_path)
  for beginning in ('Using the virtual environment that is there', ''):
    code, out, err = source(ADM_VENV=str(tmp_path / 'theirs'))
    assert code == 0 and out.endswith(f'{tmp_path}/theirs/bin/python\n') and not err
    assert out.startswith(beginning)
  assert (tmp_path / 'theirs' / 'notes.txt').read_text() == 'mine'


def test_one_that_is_too_old_is_refused_and_not_replaced(tmp_path):
  _their_environment(tmp_path / 'theirs', answers=False)
  code, _, err = _environment(tmp_path)(ADM_VENV=str(tmp_path / 'theirs'))
  assert code == 2 and 'no Python 3.11 or newer with pip' in err and err.count('\n') == 1
  assert (tmp_path / 'theirs' / 'notes.txt').exists()


def test_an_installation_that_was_broken_off_begins_anew(tmp_path):
  source = _environment(tmp_path, uv=UV)
  (tmp_path / '.venv' / 'lib').mkdir(parents=True)
  (tmp_path / '.venv' / '.adm_begun').touch()
  code, out, _ = source()
  assert code == 0 and out.endswith(f'\n{tmp_path}/.venv/bin/python\n')
  assert not (tmp_path / '.venv' / 'lib').exists()


# The simulated cluster


def test_a_local_cluster_tells_its_processes_of_each_other():
  code, out, _ = _run(LAUNCH / 'local_cluster.sh', '--dry-run', 2, 4, 'adm', 'train', ADM_PORT='99',
                      XLA_FLAGS='--mine')
  assert code == 0 and out.splitlines() == [
      f"JAX_PLATFORMS=cpu XLA_FLAGS='--mine --xla_force_host_platform_device_count=4' adm train "
      f'--coordinator 127.0.0.1:99 --num-processes 2 --process {i}' for i in (0, 1)]


@pytest.mark.parametrize('codes, wanted', [
    ((0, 0), 0), ((0, 3), 3), ((134, 75), 75), ((75, 134), 75), ((75, 2), 2), ((1, 75), 1)])
def test_a_local_cluster_ends_with_a_mistake_before_a_restart(codes, wanted):
  # The last flag is the process's number.
  script = f'shift $(($# - 1)); codes=({codes[0]} {codes[1]}); exit "${{codes[$1]}}"'
  assert _run(LAUNCH / 'local_cluster.sh', 2, 1, 'bash', '-c', script, ADM_PORT='99')[0] == wanted


@pytest.mark.parametrize('codes, wanted', [((75, None), 75), ((None, 2), 2), ((0, None), 137)])
def test_a_local_cluster_kills_what_is_stopped_for_ever_once_another_has_ended(codes, wanted):
  actions = ['kill -STOP $$' if code is None else f'exit {code}' for code in codes]
  script = f'shift $(($# - 1)); if [ "$1" = 0 ]; then {actions[0]}; else {actions[1]}; fi'
  began = time.monotonic()
  code, out, err = _run(LAUNCH / 'local_cluster.sh', 2, 1, 'bash', '-c', script, ADM_PORT='99',
                        ADM_GRACE='1')
  stopped = re.search(rf'process {codes.index(None)} has id (\d+)', out)[1]
  assert code == wanted and time.monotonic() - began < 10
  assert f'processes {stopped} had not ended 1 s after the first: killed' in err


def test_a_local_cluster_says_how_long_it_waits():
  code, _, err = _run(LAUNCH / 'local_cluster.sh')
  assert code == 2 and '60 s after the first of them (ADM_GRACE) are killed' in err


# TPU slices

RUN = ['adm1', 'run', '--config', 'a.py', '--workdir', 'gs://bucket/a']
SAMPLE = ['adm1', 'run', 'adm', 'sample', '--model', 'imagenet64', '--out', 'gs://bucket/b']


@pytest.mark.parametrize('words, wanted', [
    (RUN, [['tpu-vm create adm1', '--zone us-west4-a', 'v5litepod-16', '--spot'],
           ['tpu-vm ssh adm1', '--worker all', 'pkill -TERM', 'pkill -KILL'],
           ['git -C', 'archive', 'HEAD'], ['tpu-vm scp', 'adm1:adm_jax.tar.gz', '--worker all'],
           ['tpu-vm ssh adm1', '--worker all', 'rm -rf adm_jax', 'adm_environment', r'jax[tpu]'],
           ['--worker all', 'setsid', 'adm_venv/bin/adm', 'a.py', 'gs://bucket/a'],
           ['--worker 0', 'train.log'], ['--worker all', 'cat code']]),
    (SAMPLE, [['create'], ['pkill'], ['git -C'], ['scp'], ['adm_environment'],
              ['--worker all', 'adm_venv/bin/adm "$@"', 'adm sample --model imagenet64 --out gs://bucket/b'],
              ['train.log'], ['cat code']]),
    (['adm1', 'logs'], [['--worker 0', 'train.log'], ['--worker all', 'cat code']]),
    (['adm1', 'stop'], [['tpu-vm ssh adm1', '--worker all', 'pkill -TERM', 'pkill -KILL']]),
    (['adm1', 'copy', 'gs://bucket/a', 'runs/a'],
     [['mkdir -p runs/a'], ['gcloud storage rsync --recursive gs://bucket/a runs/a']]),
    (['adm1', 'delete'], [['tpu-vm delete adm1 --zone us-west4-a --quiet']]),
], ids=['run', 'run sample', 'logs', 'stop', 'copy', 'delete'])
def test_a_dry_run_prints_the_commands_of_every_action(words, wanted):
  code, out, _ = _run(LAUNCH / 'tpu_pod.sh', '--dry-run', *words, ADM_TPU_TYPE='v5litepod-16',
                      ADM_SPOT='1')
  lines = [line.replace('\\', '') for line in out.splitlines()]  # the quoting of the printed words
  assert code == 0 and len(lines) == len(wanted)
  for line, parts in zip(lines, wanted):
    assert [part for part in parts if part not in line] == []


@pytest.mark.parametrize('words, match', [
    (['adm1', 'run', '--workdir', 'runs/a'], 'no --workdir gs://'), (['adm1'], 'usage'),
    (['adm1', 'run', 'sample', '--model', 'gs://b/m', '--out', 'runs/a'], 'no --workdir gs://'),
    (['adm1', 'copy', 'gs://b'], 'usage'), (['adm1', 'frob'], 'usage')])
def test_a_mistake_with_a_tpu_slice_is_one_line(words, match):
  code, out, err = _run(LAUNCH / 'tpu_pod.sh', '--dry-run', *words)
  assert code == 2 and match in err and err.count('\n') == 1 and not out


# Says what it is asked, and does what can be done here: a host is a folder, in which commands run.
# The file `refuse` holds patterns of calls to fail, a line a time.
GCLOUD = r'''
called="${*:4}"
echo "$called" >> "$FAKE/calls"
if [ -s "$FAKE/refuse" ] && [[ $called == $(head -n 1 "$FAKE/refuse") ]]; then
  sed -i.old 1d "$FAKE/refuse"
  echo "gcloud's reason" >&2
  exit 1
fi
case $called in
  create*) echo READY > "$FAKE/state" ;;
  delete*) rm "$FAKE/state" ;;
  describe*) cat "$FAKE/state" ;;
  *pkill* | *adm_environment*) ;;
  ssh*)
    worker=$9 command=${11}
    for host in "$FAKE"/host*; do
      if [ "$worker" = all ] || [ "$host" = "$FAKE/host$worker" ]; then
        (cd "$host" && HOME=$host bash -c "$command") || exit
      fi
    done
    ;;
esac'''
# Ends with the first of the codes that its host still has.
ADM = r'''
printf "%s\n" "training $*" "$#"
code=$(head -n 1 ~/codes)
sed -i.old 1d ~/codes
exit "$code"'''


@pytest.fixture
def pod(tmp_path):
  """pod(codes of host 0, codes of host 1, ..., refuse=[...]) runs on such a slice."""
  # No process of this machine may be signalled. The log is given a second at its end, or $LINGER.
  path = _commands(tmp_path / 'bin', gcloud=GCLOUD, git='exec cat "$FAKE/changes"', pkill='exit 1',
                   pgrep='exit 1', setsid='exec "$@"',
                   sleep='[ "$1" != 1 ] || exec /bin/sleep "${LINGER:-0}"; exec /bin/sleep 0.02')
  def run(*hosts, refuse=(), changes='', words=RUN, **environment):
    for i, codes in enumerate(hosts):
      _commands(tmp_path / f'host{i}/adm_venv/bin', adm=ADM)
      (tmp_path / f'host{i}/adm_jax').mkdir()
      (tmp_path / f'host{i}/codes').write_text(''.join(f'{code}\n' for code in codes))
    (tmp_path / 'refuse').write_text(''.join(f'{pattern}\n' for pattern in refuse))
    (tmp_path / 'changes').write_text(changes)
    code, out, err = _run(LAUNCH / 'tpu_pod.sh', *words, PATH=path, FAKE=str(tmp_path),
                          ADM_WAIT='0', **environment)
    calls = (tmp_path / 'calls').read_text()
    return code, out, err, [line.split()[0] for line in calls.splitlines() if line[:1].isalpha()]
  return run


def test_a_run_on_a_slice_shows_the_log_and_ends_with_it(pod):
  code, out, err, calls = pod([0], [0], LINGER='0.5')
  assert code == 0 and 'training train --config a.py --workdir gs://bucket/a' in out and not err
  assert calls.count('create') == 1 and calls.count('scp') == 1


def test_another_command_runs_and_its_results_are_copied(pod, tmp_path):
  code, out, _, _ = pod([0], words=SAMPLE, ADM_COPY=str(tmp_path / 'copy'))
  assert code == 0 and 'training sample --model imagenet64 --out gs://bucket/b' in out
  assert f'\ngs://bucket/b {tmp_path}/copy\n' in (tmp_path / 'calls').read_text()


def test_what_is_copied_is_what_was_written_and_not_what_was_read(pod, tmp_path):
  words = ['adm1', 'run', 'sample', '--model', 'gs://bucket/model', '--out=gs://bucket/b']
  assert pod([0], words=words, ADM_COPY=str(tmp_path / 'copy'))[0] == 0
  assert f'\ngs://bucket/b {tmp_path}/copy\n' in (tmp_path / 'calls').read_text()


def test_words_reach_the_hosts_whatever_is_in_them(pod):
  strange = ["carpenter's kit", 'a  "b"', '$HOME *', 'two\nlines']
  code, out, _, _ = pod([0], words=[*SAMPLE, '--classes', *strange], LINGER='0.5')
  wanted = ' '.join([*SAMPLE[3:], '--classes', *strange])
  assert code == 0 and f'training {wanted}\n10\n' in out


def test_what_is_still_alive_on_the_slice_is_ended_before_anything_else(pod, tmp_path):
  pod([75, 0], [0, 0])
  calls = (tmp_path / 'calls').read_text()
  for start in calls.split('rm -rf adm_jax')[:2]:
    assert 'pkill -TERM -f "$adm"' in start


def test_changes_that_are_not_committed_are_warned_of(pod):
  code, _, err, _ = pod([0], changes=' M a.py')
  assert code == 0 and 'uncommitted changes' in err and err.count('\n') == 1


@pytest.mark.parametrize('hosts, wanted, message', [
    ([[75, 0], [75, 0]], 0, 'ended with 75: starting again'),
    ([[0, 0], [137, 0]], 0, 'ended with 137: starting again'),
    ([[75], [2]], 2, 'ended with 2, a mistake'), ([[1], [75]], 1, 'ended with 1, a mistake'),
    ([[137], [1]], 1, 'ended with 1, a mistake'), ([[0], [127]], 127, 'a mistake')],
    ids=str)
def test_a_mistake_of_any_host_is_final_and_all_else_starts_again(pod, tmp_path, hosts, wanted,
                                                                 message):
  code, _, err, calls = pod(*hosts)
  assert code == wanted and message in err and err.count('\n') == 1
  assert not any((tmp_path / f'host{i}/codes').read_text() for i in (0, 1))
  assert calls.count('scp') == len(hosts[0])  # one installation a start


def test_a_host_that_cannot_be_asked_for_its_code_is_lost(pod):
  code, _, err, _ = pod([0, 0], refuse=['ssh*ended with*'])
  assert code == 0 and 'ended with 75: starting again' in err


def test_starting_again_has_an_end(pod):
  code, _, err, _ = pod([75, 75, 75], ADM_TRIES='2')
  assert code == 75 and 'given up after 2 starts' in err


def test_a_slice_that_cannot_be_had_is_tried_again(pod):
  code, _, err, calls = pod([0], refuse=['create*', 'create*'])
  assert code == 0 and calls.count('create') == 3
  assert err.count('trying again in 0 s') == 2 and err.startswith("gcloud's reason\n")


@pytest.mark.parametrize('step, pattern', [
    ('copying this checkout to the hosts', 'scp*'), ('installing on the hosts', 'ssh*rm -rf*')])
def test_an_installation_is_tried_thrice_and_then_the_run_ends(pod, tmp_path, step, pattern):
  code, _, err, _ = pod([0], refuse=[pattern] * 2)
  assert code == 0 and err.count('\n') == 2
  (tmp_path / 'calls').unlink()
  shutil.rmtree(tmp_path / 'host0')
  code, _, err, calls = pod([0], refuse=[pattern] * 3)
  assert code == 1 and calls.count('create') == 0  # the slice was there
  *reasons, last = err.splitlines()
  assert reasons == ["gcloud's reason"] * 3 and f'adm1: {step} failed' in last


def test_a_slice_lost_during_installation_is_made_again(pod):
  # What gcloud is asked after the failure is the state, which it does not find.
  code, _, err, calls = pod([0], refuse=['scp*'] * 3 + ['describe*'] * 2)
  assert code == 0 and 'the slice is gone: trying again' in err and calls.count('create') == 2


def test_a_checkout_without_git_is_not_installed(pod, tmp_path):
  _commands(tmp_path / 'bin', git='echo "not a git repository" >&2; exit 128')
  code, _, err, calls = pod([0])
  assert code == 1 and 'packing this checkout failed' in err and 'scp' not in calls


def test_without_gcloud_one_line_says_so(tmp_path):
  path = _commands(tmp_path, dirname='exec /usr/bin/dirname "$@"').split(':')[0]
  result = subprocess.run(['/bin/bash', LAUNCH / 'tpu_pod.sh', *RUN], env={'PATH': path},
                          capture_output=True, text=True)
  assert result.returncode == 2 and 'gcloud is not installed' in result.stderr


# Slurm


def test_slurm_starts_a_process_a_gpu_and_requeues():
  code, out, _ = _run(LAUNCH / 'slurm.sbatch', '--dry-run', '--config', 'a.py', '--workdir', 'b',
                      ADM_ROOT='/adm')
  assert code == 0 and 'cd /adm && srun' in out and 'adm train --config a.py --workdir b' in out
  assert 'scontrol requeue' in out
  options = [line for line in (LAUNCH / 'slurm.sbatch').read_text().splitlines()
             if line.startswith('#SBATCH')]
  # JAX gives a Slurm task one GPU.
  assert '#SBATCH --gpus-per-node=8' in options and '#SBATCH --ntasks-per-node=8' in options


@pytest.mark.parametrize('words, command, together', [
    (['sample', '--out', 'b'], 'adm sample --out b', 0),
    (['adm', 'reproduce', '--rows', '14', '--out', 'b'], 'adm reproduce --rows 14 --out b', 0),
    (['train', '--workdir', 'b'], 'adm train --workdir b', 1)])
def test_slurm_runs_any_command(words, command, together):
  code, out, _ = _run(LAUNCH / 'slurm.sbatch', '--dry-run', *words, ADM_ROOT='/adm')
  assert code == 0 and f'bin/{command}' in out and f'--kill-on-bad-exit={together} ' in out


# Starts a task for each of $CODES, and ends as the real one does: with a signal before all codes,
# and with a high code before a low one.
SRUN = '''
shift
highest=0 id=0
for code in $CODES; do
  one=0
  CODE=$code SLURM_PROCID=$id "$@" || one=$?
  ((one <= highest)) || highest=$one
  id=$((id + 1))
done
exit "$highest"'''
# A task that ends with 75 or 2 as it is told after Slurm has signalled it and its shell.
SIGNALLED = 'trap : TERM; kill -TERM "$PPID" "$$"; /bin/sleep 0.1; exit "$CODE"'


def _slurm(tmp_path, codes, adm='exit "$CODE"', **environment):
  """(exit code, whether it was queued again, standard error) of a job whose tasks end so."""
  path = _commands(tmp_path / 'bin', srun=SRUN, scontrol='echo "$*" > "$ADM_ROOT/requeued"')
  _commands(tmp_path / '.venv/bin', adm=adm)
  (tmp_path / 'requeued').unlink(missing_ok=True)
  code, _, err = _run(
      LAUNCH / 'slurm.sbatch', '--config', 'a.py', '--workdir', 'b', PATH=path, SLURM_JOB_ID='7',
      ADM_ROOT=str(tmp_path), SLURM_SUBMIT_DIR=str(tmp_path), CODES=' '.join(map(str, codes)),
      **environment)
  return code, (tmp_path / 'requeued').exists(), err


@pytest.mark.parametrize('adm', ['exit "$CODE"', SIGNALLED], ids=['alone', 'signalled'])
@pytest.mark.parametrize('codes, wanted, requeued', [
    ((0, 0), 0, False), ((75, 75), 75, True), ((0, 137), 137, True), ((1, 1), 1, False),
    ((2, 75), 2, False), ((137, 1), 1, False), ((127, 137), 127, False)])
def test_a_slurm_job_goes_back_into_the_queue_unless_a_task_made_a_mistake(
    tmp_path, codes, wanted, requeued, adm):
  assert _slurm(tmp_path, codes, adm)[:2] == (wanted, requeued)


def test_a_slurm_job_names_the_mistaken_task_and_forgets_it_when_started_again(tmp_path):
  code, requeued, err = _slurm(tmp_path, (75, 2))
  assert (code, requeued) == (2, False) and 'task 1 ended with 2, a mistake' in err
  assert _slurm(tmp_path, (75, 75))[:2] == (75, True)
  assert not (tmp_path / 'adm-7.mistakes').exists()


def test_a_slurm_job_is_not_queued_forever(tmp_path):
  assert _slurm(tmp_path, (75,), SLURM_RESTART_COUNT='1000')[:2] == (75, False)


# Kubernetes


def test_the_jobset_restarts_on_75_and_not_on_mistakes():
  job = yaml.safe_load((LAUNCH / 'gke.yaml').read_text())
  assert (job['kind'], job['apiVersion']) == ('JobSet', 'jobset.x-k8s.io/v1alpha2')
  spec = job['spec']['replicatedJobs'][0]['template']['spec']
  rule, = spec['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [1, 2]
  container, = spec['template']['spec']['containers']
  assert container['command'] == ['adm', 'train'] and spec['completionMode'] == 'Indexed'


def test_the_job_of_parts_makes_each_part():
  job = yaml.safe_load((LAUNCH / 'gke_parts.yaml').read_text())
  assert (job['kind'], job['apiVersion']) == ('Job', 'batch/v1')
  spec = job['spec']
  container, = spec['template']['spec']['containers']
  assert spec['completionMode'] == 'Indexed' and container['command'] == ['adm', 'sample']
  assert f'--part=$(JOB_COMPLETION_INDEX)/{spec["completions"]}' in container['args']
  ignored, final = spec['podFailurePolicy']['rules']
  assert ignored['onPodConditions'] == [{'type': 'DisruptionTarget'}]
  assert final['onExitCodes'] == {'containerName': container['name'], 'operator': 'In',
                                  'values': [1, 2]}
