# What an instance may do, and what the task worker may do to start and end instances.

data "aws_iam_policy_document" "ec2_assumes" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "replicas" {
  name               = "${local.full_name}-replicas"
  assume_role_policy = data.aws_iam_policy_document.ec2_assumes.json
}

resource "aws_iam_instance_profile" "replicas" {
  name = "${local.full_name}-replicas"
  role = aws_iam_role.replicas.name
}

data "aws_iam_policy_document" "replicas" {
  statement {
    sid       = "ReadWhatAllReplicasShare"
    actions   = ["ssm:GetParameter"]
    resources = ["arn:aws:ssm:${data.aws_region.here.name}:${data.aws_caller_identity.me.account_id}:parameter${var.environment_parameter}"]
  }

  statement {
    sid       = "PullImages"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"] # it knows no resource
  }

  statement {
    sid       = "ReadImages"
    actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = ["arn:aws:ecr:*:*:repository/loraplex/*"] # its own policy says which accounts may
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      sid       = "OpenTheParameter"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = local.models == null ? [] : [local.models]
    content {
      sid       = "ReadModels"
      actions   = ["s3:GetObject"]
      resources = ["arn:aws:s3:::${statement.value[0]}/${statement.value[1]}/*"]
    }
  }

  dynamic "statement" {
    for_each = local.models == null ? [] : [local.models]
    content {
      sid       = "AskWhatIsNotThere" # without it S3 says that it is forbidden
      actions   = ["s3:ListBucket"]
      resources = ["arn:aws:s3:::${statement.value[0]}"]
    }
  }

  dynamic "statement" {
    for_each = length(var.adapter_buckets) == 0 ? [] : [1]
    content {
      sid     = "ReadAdapters"
      actions = ["s3:GetObject", "s3:ListBucket"]
      resources = flatten([
        for bucket in var.adapter_buckets : ["arn:aws:s3:::${bucket}", "arn:aws:s3:::${bucket}/*"]
      ])
    }
  }
}

resource "aws_iam_role_policy" "replicas" {
  name   = "replicas"
  role   = aws_iam_role.replicas.id
  policy = data.aws_iam_policy_document.replicas.json
}

data "aws_iam_policy_document" "driver" {
  statement {
    sid       = "Look"
    actions   = ["ec2:DescribeInstances", "ec2:GetConsoleOutput"]
    resources = ["*"] # DescribeInstances knows no resource
  }

  statement {
    sid       = "StartByTheTemplate"
    actions   = ["ec2:CreateFleet", "ec2:RunInstances"]
    resources = ["*"]
    condition {
      test     = "ArnLikeIfExists"
      variable = "ec2:LaunchTemplate"
      values   = [aws_launch_template.this.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [data.aws_region.here.name]
    }
  }

  statement {
    sid       = "TagWhatItStarts"
    actions   = ["ec2:CreateTags"]
    resources = ["arn:aws:ec2:*:${data.aws_caller_identity.me.account_id}:*/*"]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateFleet", "RunInstances"]
    }
  }

  statement {
    sid       = "ForgetAndEndItsOwn"
    actions   = ["ec2:CreateTags", "ec2:TerminateInstances", "ec2:StartInstances", "ec2:ModifyInstanceAttribute"]
    resources = ["arn:aws:ec2:*:${data.aws_caller_identity.me.account_id}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/loraplex:installation"
      values   = [var.installation]
    }
  }

  statement {
    sid       = "GiveThemTheirRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.replicas.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
}
