"""Compiled programs, read."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from adm_jax.plan import hlo

# Written for these tests, in XLA's words: nothing of a network.
GPU = (pathlib.Path(__file__).parent / 'gpu_program.txt').read_text()


def test_shapes_have_bytes_layouts_and_a_memory():
  array, = hlo._arrays('bf16[8,16,16,128]{3,0,2,1:T(8,128)(2,1)S(1)}')
  assert array == hlo.Array('bf16', (8, 16, 16, 128), '3,0,2,1', 1)
  assert array.nbytes == 2 * 8 * 16 * 16 * 128
  sizes = {'pred[3]': 3, 's4[4]': 2, 'f8e4m3fn[5]{0}': 5, 'c64[2]': 16, 'f32[]': 4, 'token[]': 0}
  assert {shape: hlo._arrays(shape)[0].nbytes for shape in sizes} == sizes


def test_instructions_keep_operands_and_what_they_call():
  program = hlo.parse(GPU)
  assert program.entry == 'main'
  loop = program.by_name['main']['loop']
  assert loop.opcode == 'while' and program.trips(loop) == 3 and loop.operands == ('start',)
  assert loop.called == {'condition': ['condition'], 'body': ['body']}
  conv = program.by_name['body']['conv']
  assert conv.operands == ('x', 'cast') and conv.arrays[1].nbytes == 0
  assert conv.attribute('custom_call_target') == '__cudnn$convForward'
  assert program.by_name['main']['p.0'].op_name == r"params[\'w\']"
  assert [each.name for each in program.computations['main'] if each.root] == ['copy.1']


@pytest.mark.parametrize('bound, direction, trips', [
    ('250', 'LT', 250), ('%other', 'LT', None), ('250', 'NE', None)])
def test_a_loop_that_does_not_say_so_runs_as_often_as_its_condition_counts(bound, direction, trips):
  """As libtpu prints JAX's scans."""
  constant = ('%bound = s32[]{:T(128)} constant(250)' if bound == '250' else
              '%bound = s32[]{:T(128)} get-tuple-element(%s), index=1')
  program = hlo.parse(f'''
%until (s: (s32[], s32[])) -> pred[] {{
  %s = (s32[]{{:T(128)}}, s32[]{{:T(128)}}) parameter(0)
  {constant}
  %i = s32[]{{:T(128)}} get-tuple-element(%s), index=0
  ROOT %lt = pred[]{{:T(512)}} compare(%i, %bound), direction={direction}
}}

ENTRY %main () -> s32[] {{
  ROOT %loop = (s32[], s32[]) while(%start), condition=%until, body=%body
}}''')
  assert program.trips(program.by_name['main']['loop']) == trips


def test_text_of_something_else_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.parse('module @jit_f { func.func public @main() }')


def test_what_this_jax_prints_is_read():
  """The words of XLA change from version to version."""
  compiled = jax.jit(lambda x, y: jax.lax.scan(lambda c, _: (jnp.tanh(c @ y), None), x, None, 5)[0]
                     ).lower(jnp.ones((8, 16)), jnp.ones((16, 16))).compile()
  program = hlo.parse(compiled.as_text())
  loops = [each for found in program.computations.values() for each in found
           if each.opcode == 'while']
  assert [program.trips(loop) for loop in loops] == [5]
  body = program.computations[loops[0].called['body'][0]]
  named = [name for each in body for name in each.operands]
  assert named and set(named) <= {other.name for other in body}
