"""Small motion files as text, for the suites of readers and retargeting."""

BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 20 0
    CHANNELS 3 Yrotation Xrotation Zrotation
    JOINT LeftArm
    {
      OFFSET 15 30 0
      CHANNELS 3 Xrotation Yrotation Zrotation
      JOINT LeftForeArm
      {
        OFFSET 28 0 0
        CHANNELS 1 Yrotation
        JOINT LeftHand
        {
          OFFSET 25 0 0
          End Site
          {
            OFFSET 18 0 0
          }
        }
      }
    }
    JOINT RightArm
    {
      OFFSET -15 30 0
      CHANNELS 3 Zrotation Yrotation Xrotation
      JOINT RightForeArm
      {
        OFFSET -28 0 0
        CHANNELS 1 Yrotation
        JOINT RightHand
        {
          OFFSET -25 0 0
          End Site
          {
            OFFSET -18 0 0
          }
        }
      }
    }
    JOINT Neck
    {
      OFFSET 0 32 0
      JOINT Head
      {
        OFFSET 0 10 0
        CHANNELS 3 Xposition Yposition Zposition
        End Site
        {
          OFFSET 0 18 0
        }
      }
    }
  }
  JOINT LeftUpLeg
  {
    OFFSET 9 -8 0
    CHANNELS 3 Xrotation Zrotation Yrotation
    JOINT LeftLeg
    {
      OFFSET 0 -40 0
      CHANNELS 1 Xrotation
      JOINT LeftFoot
      {
        OFFSET 0 -40 0
        JOINT LeftToeBase
        {
          OFFSET 0 -6 13
          End Site
          {
            OFFSET 0 0 6
          }
        }
      }
    }
  }
  JOINT RightUpLeg
  {
    OFFSET -9 -8 0
    CHANNELS 3 Xrotation Zrotation Yrotation
    JOINT RightLeg
    {
      OFFSET 0 -40 0
      CHANNELS 1 Xrotation
      JOINT RightFoot
      {
        OFFSET 0 -40 0
        JOINT RightToeBase
        {
          OFFSET 0 -6 13
          End Site
          {
            OFFSET 0 0 6
          }
        }
      }
    }
  }
}
"""
COLUMNS = 6 + 3 + (3 + 1) + (3 + 1) + 3 + (3 + 1) + (3 + 1)
HEAD_COLUMN = 17
ARM_COLUMN = 9


def row(frame=0, scale=1.0, arms=60.0, **values) -> list[float]:
    """One frame's columns: standing at x = frame, arms down by ``arms`` degrees."""
    columns = [0.0] * COLUMNS
    columns[0:3] = [frame * scale, 94.0 * scale, 0.0]
    columns[ARM_COLUMN + 2], columns[ARM_COLUMN + 4] = -arms, arms
    columns[HEAD_COLUMN:HEAD_COLUMN + 3] = [0.0, 10.0 * scale, 0.0]
    for column, value in values.items():
        columns[int(column[1:])] = value
    return columns


def bvh(rows=None, frame_time="0.033333", frames=None, scale=1.0) -> str:
    """A BVH text of a small person, offsets and rows in centimetres times ``scale``."""
    rows = [row(f, scale) for f in range(8)] if rows is None else rows
    head = "\n".join("OFFSET " + " ".join(f"{float(w) * scale:.8g}" for w in line.split()[1:]) if "OFFSET" in line else line
                     for line in BVH.splitlines())
    body = "\n".join(" ".join(f"{v:.8g}" for v in r) for r in rows)
    return f"{head}\nMOTION\nFrames: {len(rows) if frames is None else frames}\nFrame Time: {frame_time}\n{body}\n"


def _bone(name, direction, length, axis="0 0 0", dof=""):
    dof = f"\n    dof {dof}" if dof else ""
    return f"  begin\n    name {name}\n    direction {direction}\n    length {length}\n    axis {axis} XYZ{dof}\n  end\n"


def asf() -> str:
    """An ASF of a small person in CMU names and units; the knees' axes are turned by 20 degrees, as CMU's are."""
    bones = _bone("lowerback", "0 1 0", 2.1, dof="rx ry rz") + _bone("upperback", "0 1 0", 2.1, dof="rx ry rz")
    bones += _bone("thorax", "0 1 0", 2.1, dof="rx ry rz") + _bone("lowerneck", "0 1 0", 1.6, dof="rx ry rz")
    bones += _bone("upperneck", "0 1 0", 1.6, dof="rx ry rz") + _bone("head", "0 1 0", 1.6, dof="rx ry rz")
    hierarchy = ["root lhipjoint rhipjoint lowerback", "lowerback upperback", "upperback thorax",
                 "thorax lowerneck lclavicle rclavicle", "lowerneck upperneck", "upperneck head"]
    for s, x in (("l", 1), ("r", -1)):
        bones += _bone(f"{s}hipjoint", f"{0.66 * x} -0.71 0.25", 2.5)
        bones += _bone(f"{s}femur", f"{0.34202 * x} -0.939693 0", 7.5, f"0 0 {20 * x}", "rx ry rz")
        bones += _bone(f"{s}tibia", f"{0.34202 * x} -0.939693 0", 7.2, f"0 0 {20 * x}", "rx")
        bones += _bone(f"{s}foot", f"{0.09 * x} -0.24 0.966", 2.2, f"-90 0 {20 * x}", "rx rz")
        bones += _bone(f"{s}toes", "0 0 1", 1.1, f"-90 0 {20 * x}", "rx")
        bones += _bone(f"{s}clavicle", f"{0.97 * x} 0.24 0", 3.6, dof="ry rz")
        bones += _bone(f"{s}humerus", f"{x} 0 0", 5.0, f"180 {-30 * x} {-90 * x}", "rx ry rz")
        bones += _bone(f"{s}radius", f"{x} 0 0", 3.4, f"180 {-30 * x} {-90 * x}", "rx")
        bones += _bone(f"{s}wrist", f"{x} 0 0", 1.7, f"0 {90 * x} {90 * x}", "ry")
        bones += _bone(f"{s}hand", f"{x} 0 0", 0.7, f"0 {90 * x} {90 * x}", "rx rz")
        hierarchy += [f"{s}hipjoint {s}femur", f"{s}femur {s}tibia", f"{s}tibia {s}foot", f"{s}foot {s}toes",
                      f"{s}clavicle {s}humerus", f"{s}humerus {s}radius", f"{s}radius {s}wrist", f"{s}wrist {s}hand"]
    tree = "\n".join(f"    {line}" for line in hierarchy)
    return (":version 1.10\n:name T\n:units\n  mass 1.0\n  length 0.45\n  angle deg\n:root\n"
            "  order TX TY TZ RX RY RZ\n  axis XYZ\n"
            f"  position 0 0 0\n  orientation 0 0 0\n:bonedata\n{bones}:hierarchy\n  begin\n{tree}\n  end\n")


AMC_DOF = {"lowerback": 3, "upperback": 3, "thorax": 3, "lowerneck": 3, "upperneck": 3, "head": 3} | {
    f"{s}{bone}": n for s in "lr" for bone, n in (("femur", 3), ("tibia", 1), ("foot", 2), ("toes", 1), ("clavicle", 2),
                                                   ("humerus", 3), ("radius", 1), ("wrist", 1), ("hand", 2))}


def amc(frames=6, root="0 17 0 0 0 0", **values) -> str:
    """An AMC text on `asf`: every value zero but the given bones' (a string of numbers)."""
    text = ":FULLY-SPECIFIED\n:DEGREES\n"
    for f in range(1, frames + 1):
        text += f"{f}\nroot {root}\n"
        text += "".join(f"{b} {values.get(b, ' '.join(['0'] * n))}\n" for b, n in AMC_DOF.items())
    return text
